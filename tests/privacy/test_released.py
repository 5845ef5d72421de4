"""The list of what leaves a site: complete, and the same in the code and in the docs."""

from pathlib import Path

from fedsite.privacy import released


def test_the_document_shows_the_code_s_table():
    text = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")
    assert released.markdown() in text


def test_every_row_has_a_charge_or_says_why_it_has_none():
    for row in released.TABLE:
        assert all((row.name, row.when, row.bound, row.mechanism))
        noised = "Gaussian" in row.mechanism
        assert noised == (row.charge != "none")
