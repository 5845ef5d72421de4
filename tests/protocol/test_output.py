"""What commands print: one value, for people or as JSON, and errors with the documented exit code."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from fedsite.privacy.errors import PrivacyError
from fedsite.protocol import output
from fedsite.protocol.errors import BudgetError, ConfigError, IntegrityError, StorageError, TrustError, UnreachableError
from fedsite.telemetry.errors import TaskError, TelemetryError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (TaskError("x"), 2),
        (TelemetryError("x"), 3),
        (TrustError("x"), 4),
        (UnreachableError("x"), 5),
        (BudgetError("x"), 7),
        (PrivacyError("x"), 7),
        (IntegrityError("x"), 8),
        (StorageError("x"), 9),
        (OSError(errno.ENOSPC, "No space left on device", "/disk"), 9),
        (KeyboardInterrupt(), 130),
        (ValueError("x"), 1),
        (FileNotFoundError(2, "x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert output.exit_code(error) == code


def test_an_error_says_found_allowed_next(capsys: Any) -> None:
    assert output.fail(ConfigError("colour is red", allowed="blue", next_step="fedsite paint"), as_json=False) == 2
    assert capsys.readouterr().err == "error: colour is red\nallowed: blue\nnext: fedsite paint\n"
    output.fail(ConfigError("colour is red", allowed="blue"), as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "schema": "fedsite.error/1",
        "error": "ConfigError",
        "found": "colour is red",
        "allowed": "blue",
        "next": "",
        "exit_code": 2,
    }


def test_a_value_is_the_same_for_people_and_programs(capsys: Any) -> None:
    value = {"schema": "x/1", "name": "a", "on": True, "none": None, "rows": [{"n": 1, "ε": 0.12345}, {"n": 20}]}
    output.emit(value, as_json=True)
    assert json.loads(capsys.readouterr().out) == value
    output.emit(value, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name  a", "on    yes", "none  -", "rows:", "  n   ε", "  1   0.1235", "  20  -"]


def test_nan_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        output.emit({"x": float("nan")}, as_json=True)


@pytest.mark.parametrize(
    ("value", "text"), [(8.0, "8"), (7.99236, "7.993"), (7.9987, "7.999"), (0.0, "0"), (123.4, "123.4")]
)
def test_a_printed_epsilon_is_never_below_the_claim(value: float, text: str) -> None:
    assert output.epsilon(value) == text
    assert float(output.epsilon(value)) >= value


def test_tables_round_epsilon_up_and_what_is_left_down(capsys: Any) -> None:
    output.emit({"epsilon": 7.9993, "runs": [{"epsilon_spent": 7.9993, "seconds": 7.9993}]}, as_json=False)
    assert capsys.readouterr().out.split() == ["epsilon", "8", "runs:", "epsilon_spent", "seconds", "8", "7.999"]
    output.emit({"epsilon": 8.2535, "left": 1.7465}, as_json=False)
    assert capsys.readouterr().out.split() == ["epsilon", "8.254", "left", "1.746"]
    assert [output.epsilon_left(value) for value in (0.0, 2.0, 10 - 7.998)] == ["0", "2", "2.002"]


def test_what_a_terminal_would_obey_is_shown_as_a_sign(capsys: Any) -> None:
    output.emit([{"name": "\x1b[2Jplänt\u202e"}], as_json=False)
    output.say("a\x07b")
    told = capsys.readouterr()
    assert told.out == "name\n\ufffd[2Jplänt\ufffd\n"
    assert told.err == "a\ufffdb\n"


def test_a_value_of_several_lines_cannot_pass_for_lines_of_ours(capsys: Any) -> None:
    """A centre words a plan: a channel called so must not look like a card's own line."""
    name = "flow\n\nprotection\n  secagg"
    for value in ([f"channels  {name}"], {"channel": name}, [{"channel": name}]):
        output.emit(value, as_json=False)
        assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith(("protection", "  sec"))]
    output.emit("a text\nof two lines", as_json=False)
    assert capsys.readouterr().out == "a text\nof two lines\n"


def test_a_long_text_goes_on_below_and_its_words_stay_whole() -> None:
    command = "/" + "x" * 90
    lines = output.fold(f"copy {command} from\na backup", first="  next: ", then="    ", width=40)
    assert lines == ["  next: copy", f"    {command}", "    from a backup"]
    assert output.fold("", first="name  ") == ["name  "]


def test_a_screen_that_a_program_reads_keeps_a_value_on_its_line(capsys: Any) -> None:
    output.emit({"fingerprint": "7bd4 " * 30}, as_json=False)
    assert len(capsys.readouterr().out.splitlines()) == 1
