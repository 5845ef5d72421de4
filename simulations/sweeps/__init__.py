"""Several runs: which, in what order, kept where, taken together."""
