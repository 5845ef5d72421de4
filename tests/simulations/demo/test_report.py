"""The report document and its page."""

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedsite.protocol.errors import DocumentError
from fedsite.simulations.demo import page, report


def example() -> report.Report:
    """Two sites, two rounds."""
    return report.Report(
        task="pump",
        title="Pump <faults>",
        run_id="01JZZZZZZZZZZZZZZZZZZZZZZZ",
        created="2026-01-02T03:04:05Z",
        seconds=61.5,
        protection="sealed",
        outcome="completed",
        parameters=1234,
        metric=report.Metric(
            name="rmse", better="lower", unit="cycles", global_=13.8, central=13.4, local_only=18.1, int8=13.9
        ),
        privacy=report.Privacy(mode="sample", unit="window", adjacency="add-remove", delta=1e-5, epsilon_max=7.9),
        sites=(
            report.Site(name="a", windows=10, outcome="ok", epsilon=7.9, metric=13.5, local_only=17.0, central=13.0),
            report.Site(name="b", windows=20, outcome="refused", epsilon=0.0, metric=None),
        ),
        rounds=(
            report.Round(
                number=1, outcome="completed", participants=2, seconds=1.0, bytes_up=10, bytes_down=20, metric=20.0
            ),
            report.Round(
                number=2, outcome="abandoned", participants=1, seconds=1.0, bytes_up=10, bytes_down=20, metric=None
            ),
        ),
        phases=(report.Phase(name="rounds", seconds=2.0, bytes=60),),
        secagg=report.Secagg(
            opened=3,
            failed=1,
            survivors=2,
            colluding=0,
            groups=1,
            stages=(report.Stage(name="share", seconds=0.25, bytes_up=300, bytes_down=4000),),
        ),
        release=report.Release(version="v1", bytes=1000, fp32_bytes=4000, verified_sites=2),
        command="fedsite demo",
    )


class Strict(HTMLParser):
    """Collects tags, text, and every attribute that could load something from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag != "meta" and tag != "br":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(text: str) -> Strict:
    parser = Strict()
    parser.feed(text)
    return parser


def test_the_document_has_the_promised_keys() -> None:
    value = json.loads(report.encode(example()))
    assert value["schema_version"] == 1
    assert value["metric"]["global"] == 13.8
    assert {"schema_version", "task", "run_id", "seconds", "protection", "metric", "privacy", "sites", "rounds"} <= set(
        value
    )
    assert {"number", "outcome", "participants", "seconds", "bytes_up", "bytes_down", "metric"} <= set(
        value["rounds"][0]
    )
    assert {"version", "bytes", "fp32_bytes", "verified_sites"} <= set(value["release"])


def test_encode_and_decode_are_inverse() -> None:
    assert report.decode(report.encode(example())) == example()


def test_a_document_of_another_kind_is_refused() -> None:
    with pytest.raises(DocumentError):
        report.decode(b'{"schema":"fedsite.plan/1"}')


def test_the_page_is_self_contained_and_well_formed() -> None:
    parsed = parse(page.render(example()))
    assert parsed.open == []
    assert parsed.loads == []
    assert "script" not in page.render(example())
    assert "Pump <faults>" in parsed.text


def test_the_page_says_what_happened() -> None:
    text = parse(page.render(example())).text
    for figure in ("13.8", "13.4", "18.1", "ε = 7.9", "abandoned", "1.0 kB"):
        assert figure in text


def test_the_page_says_what_the_server_saw() -> None:
    text = parse(page.render(example())).text
    assert "3 sums, the smallest over 2 sites" in text
    assert "1 more failed" in text
    sealed = dataclasses.replace(example(), secagg=None)
    assert "What the server saw" not in parse(page.render(sealed)).text


def test_without_privacy_no_epsilon_is_printed() -> None:
    value = dataclasses.replace(
        example(), privacy=dataclasses.replace(example().privacy, mode="none", epsilon_max=None)
    )
    text = parse(page.render(value)).text
    assert "ε =" not in text
    assert "not private" in text


def test_two_claims_are_told_apart() -> None:
    site = report.SiteClaim(adjacency="zero-out", delta=1e-6, epsilon=3.25, mechanism="skellam", honest=2)
    both = dataclasses.replace(example().privacy, mode="both", site=site)
    text = parse(page.render(dataclasses.replace(example(), privacy=both))).text
    assert "ε = 7.9" in text
    assert "ε = 3.25 for all data of one site" in text
    assert "not private" not in text
    alone = dataclasses.replace(both, mode="site", epsilon_max=None)
    text = parse(page.render(dataclasses.replace(example(), privacy=alone))).text
    assert "ε = 7.9" not in text
    assert "ε = 3.25per site, in the sums, δ = 1e-06" in text


def test_a_run_without_model_or_release_still_has_a_page() -> None:
    value = dataclasses.replace(
        example(),
        metric=dataclasses.replace(example().metric, global_=None, central=None, local_only=None, int8=None),
        release=None,
        release_refused="int8 rmse is 14.1 and fp32 13.7",
        rounds=(),
    )
    parsed = parse(page.render(value))
    assert parsed.open == []
    assert "no release. The gate refused it: int8 rmse is 14.1" in parsed.text


def test_verdict_names_a_loss_as_a_loss() -> None:
    value = dataclasses.replace(example(), metric=dataclasses.replace(example().metric, global_=20.0))
    assert "behind" in page.verdict(value)


def test_save_writes_both_files(tmp_path: Path) -> None:
    written = page.save(example(), tmp_path)
    assert written.name == "report.html"
    assert report.decode((tmp_path / "report.json").read_bytes().strip()) == example()
