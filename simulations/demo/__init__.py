"""A whole federation on this machine, measured and shown."""
