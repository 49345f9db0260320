"""Notebooks as values: read, edited, shown and merged; no file, kernel or network is touched."""
