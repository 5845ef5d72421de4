"""What is done on data, in a process of its own."""
