"""What a cell has started and left running: told with its end, so that somebody can end it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

MAX_TOLD = 5
MAX_COMMAND = 200
"""Of a command line, in bytes."""
PATIENCE_S = 0.005
"""How long all of them together may take to begin: one that just starts a program has no command
line yet."""


def going_on(pids: Iterable[int], parent_id: str) -> dict[str, Any] | None:
    """The event that tells of processes which are there; None when none of them is.

    Args:
        pids: Those that the cell may have started.
        parent_id: The cell.
    """
    until = time.monotonic() + PATIENCE_S
    found = [
        {"pid": pid, "command": command}
        for pid in sorted(pids)
        if (command := _command(pid, until))
    ]
    if not found:
        return None
    return {
        "event": "going_on",
        "parent_id": parent_id,
        "processes": len(found),
        "commands": found[:MAX_TOLD],
    }


def _command(pid: int, until: float) -> str:
    """What a process runs, as it was called, or its name where it hides that; empty when it has
    ended."""
    while not (words := _read(pid, "cmdline").replace(b"\0", b" ").strip()):
        if _read(pid, "statm")[:2] in (b"", b"0 "):
            return ""
        if time.monotonic() > until:
            words = b"[%b]" % _read(pid, "comm").strip()
            break
        time.sleep(0.0002)
    return words.decode("utf-8", "replace")


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(MAX_COMMAND)
    except OSError:
        return b""
