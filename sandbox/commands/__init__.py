"""Commands in a container: one process each."""
