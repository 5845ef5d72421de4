"""How updates become the next global model: one file per strategy, found by name in `registry`."""
