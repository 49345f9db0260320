"""Terminals of a session: programs on ptys inside, their screens drawn on this side."""
