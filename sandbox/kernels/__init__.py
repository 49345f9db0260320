"""Kernels of a session: cells run in order, and every execution ends truthfully."""
