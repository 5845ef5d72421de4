"""A run that waits for a person at one of its sites: asked again, shown as a card, approved, and completed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.toy_federation import Toys


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toys]:
    """Two sites; at beta a person agrees to each run."""
    with Toys(tmp_path_factory.mktemp("approval")) as running:
        running.site("alpha")
        home = running.prepare_site("beta")
        path = home / "site" / "site.yaml"
        path.write_text(path.read_text().replace("require_privacy: false", "require_privacy: false, approval: each"))
        running.start_agent("beta")
        running.wait_online("alpha", "beta")
        yield running


def test_a_run_waits_for_a_person_and_completes(toys: Toys, tmp_path: Path) -> None:
    beta = toys.site_home("beta")
    words = ("protection=sealed", "rounds.count=1", "rounds.minimum=2", "rounds.wait_s=100")
    run_id = toys.launch(*words)
    watch = toys.watch(run_id)
    asked = watch.until(lambda event: event["kind"] == "prepared")
    assert (asked["accepted"], asked["refused"]) == (["alpha"], {"beta": "approval"})
    listed = toys.cli("rounds", "--json", home=beta).value
    assert [(run["run_id"], run["state"], run["rounds"]) for run in listed["rounds"]] == [(run_id, "waiting", 0)]
    card = toys.cli("rounds", "show", run_id, "--json", home=beta).value
    assert (card["schema"], card["state"], card["refused"]) == ("fedsite.card/1", "waiting", [])
    assert card["data"]["source"].endswith("toy.csv")
    assert "the first run of toy" in card["new"][0]
    approved = toys.cli("rounds", "approve", run_id, "--json", home=beta)
    assert approved.code == 0, approved.stderr
    assert watch.finished()["outcome"] == "completed"
    (done,) = toys.cli("rounds", "list", "--json", home=beta).value["rounds"]
    assert (done["state"], done["outcome"], done["rounds"], done["decided"]["verdict"]) == (
        "ended", "completed", 1, "approved",
    )  # fmt: skip
    assert done["bytes_up"] > 0
    assert done["seconds"] > 0
    # The very plan that ran, as the central team would send it around beforehand.
    plan = toys.state / "runs" / run_id / "plan.json"
    tested = toys.cli("policy", "test", str(plan), "--json", home=beta)
    assert (tested.code, tested.value["would"]) == (0, "accept")
    told = toys.cli("policy", "test", str(plan), "--json", home=toys.site_home("alpha"))
    assert (told.code, told.value["plan_hash"]) == (0, card["plan_hash"])
