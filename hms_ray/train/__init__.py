"""Training of one fold, in one process or in a group of ranks."""
