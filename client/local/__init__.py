"""The agent's interface to its own host."""
