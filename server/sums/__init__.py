"""Sums of which the server sees the total alone."""
