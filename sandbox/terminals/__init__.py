"""Terminals of a session: programs on ptys inside, their screens drawn on this side."""

from sandbox.terminals.models import Cursor, TerminalInfo, TerminalView
from sandbox.terminals.terminals import Terminals

__all__ = ["Cursor", "TerminalInfo", "TerminalView", "Terminals"]
