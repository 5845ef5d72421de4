"""Rounds by file, for sites without a link."""
