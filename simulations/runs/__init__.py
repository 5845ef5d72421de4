"""One simulated run, from its settings to its result."""
