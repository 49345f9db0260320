"""``make bench-peers``: this project beside others that run code in containers, in one run."""
