"""Commands of the central team."""
