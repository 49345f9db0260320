"""One container: what it shall be, what it is found to be, and the link into it."""
