"""Rounds by file, where there is no link."""
