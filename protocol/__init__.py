"""What both ends agree on: documents, keys, messages, sealing, releases. No I/O to the network."""
