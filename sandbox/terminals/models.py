"""The values that terminals give to callers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from sandbox.outputs.denials import Denial

WaitEnd = Literal["", "prompt", "quiet", "time", "exit"]
"""What ended a wait for a program's answer; empty where nobody waited."""


class TerminalInfo(BaseModel, frozen=True):
    """A terminal as it is now."""

    terminal_id: str
    rows: int
    """Its height in lines."""
    cols: int
    """Its width in characters."""
    pid: int
    """Of its program, inside the sandbox."""
    alive: bool
    """Whether its program runs."""
    exit_code: int | None
    """How the program ended; None while it runs, or when a signal ended it."""


class Cursor(BaseModel, frozen=True):
    """Where the cursor is, counted from 1."""

    row: int
    col: int


class TerminalView(BaseModel, frozen=True):
    """What a terminal shows."""

    terminal_id: str
    new_text: str
    """What was written after the reader's place, as plain text."""
    position: int
    """The reader's place now: what is written from here on is new to it."""
    screen: list[str]
    """The lines of the screen as they look now."""
    cursor: Cursor
    alive: bool
    exit_code: int | None
    wait_ended: WaitEnd = ""
    """What ended the wait: the prompt of a shell or REPL is back (prompt), nothing more came for a
    moment (quiet), the time was over and more may come (time), or the program ended (exit); empty
    if nobody waited."""
    dropped_bytes: int
    """The bytes after the reader's place that are not in ``new_text``: they were too many."""
    denials: tuple[Denial, ...] = ()
    """What the session's network policy refused since the last read."""
