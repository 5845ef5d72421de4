"""A plan through Flower's own simulation: real clients, real messages."""
