"""Aggregation strategies, one file per paper."""
