"""The central host: guarded SuperLink, rounds, aggregation, releases."""
