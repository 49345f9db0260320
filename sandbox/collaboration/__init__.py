"""Notebooks that several people and agents edit at the same moment."""
