"""A run on the disk: journal, result, checkpoints."""
