"""The error tree: messages, codes that stay as they are, and the trip through a pipe."""

import pytest

from fedsite.protocol import errors


def leaves() -> list[type[errors.FedsiteError]]:
    found, queue = [], [errors.FedsiteError]
    while queue:
        kind = queue.pop()
        found.append(kind)
        queue += [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return found


@pytest.mark.parametrize("kind", leaves())
def test_every_error_says_found_allowed_next(kind: type[errors.FedsiteError]) -> None:
    error = kind("found", allowed="a, b", next_step="do it", refusal=errors.RefusalCode.BUSY)
    assert error.refusal == "busy"
    assert str(error) == "found; allowed: a, b; next: do it"


def test_names_end_in_error() -> None:
    assert all(kind.__name__.endswith("Error") for kind in leaves())


def test_message_leaves_out_what_is_empty() -> None:
    assert str(errors.FedsiteError("found")) == "found"


def test_exit_codes_are_never_renumbered() -> None:
    expected = {0: "OK", 1: "INTERNAL", 2: "USAGE", 3: "DATA", 4: "TRUST", 5: "UNREACHABLE", 6: "POLICY", 7: "BUDGET"}
    expected |= {8: "INTEGRITY", 9: "STORAGE", 130: "INTERRUPTED"}
    assert {code.value: code.name for code in errors.ExitCode} == expected


def test_refusal_codes_are_never_renamed() -> None:
    first = "protocol-version malformed too-large signature wrong-site wrong-run expired replayed plan-unknown "
    first += "plan-invalid task-unsupported model-unknown model-invalid policy protection data-missing data-contract "
    first += "too-few-windows budget busy storage release-invalid self-test internal"
    assert set(first.split()) <= {code.value for code in errors.RefusalCode}
