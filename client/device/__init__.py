"""The released model on this host."""
