"""A disk that takes nothing more, from any write of an answer on: refused by name, paid once, well again with it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.faults.simulated_link import Link, Server, World, run
from tests.faults.test_link import _kit, asked, outcome, unsent


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def test_a_disk_that_takes_nothing_from_any_write_on_is_named(
    tmp_path: Path, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = []
    for place in range(100):
        (folder := tmp_path / str(place)).mkdir()
        world, kit = World(), _kit(folder)
        server = Server(folder / "server", world)
        for kind in ("prepare", "statistics"):
            asked(kit, server, kind)
        run(Link(server, world), kit)

        writes = 0
        make = tempfile.mkstemp

        def starved(*given: Any, room: int = place, make: Any = make, **named: Any) -> tuple[int, str]:
            nonlocal writes
            writes += 1
            if writes > room:
                raise OSError(reason, os.strerror(reason))
            return make(*given, **named)  # type: ignore[no-any-return]

        number = asked(kit, server, "train")
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "mkstemp", starved)
            run(Link(server, world), kit)
        codes.append(outcome(kit, server, number))
        again = number if codes[-1] == "ok" else asked(kit, server, "train", attempt=2)
        run(Link(server, world), kit)
        assert outcome(kit, server, again) == "ok", place
        assert len(server.pushed()) == len(set(server.pushed())) == (3 if again == number else 4)
        assert sorted(spend.steps for spend in kit.spent()) == [1, 3], place
        assert unsent(kit) == []
        if writes <= place:
            break
    assert set(codes) == {"ok", "storage"}
    assert len(codes) >= 4, codes
