"""Shells that sleep, as a test of interrupts needs them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def is_run(*words: str) -> bool:
    """Whether somebody runs this program with these arguments."""
    wanted = "".join(f"{word}\0" for word in words).encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes() == wanted:
                return True
    return False


def sleeps(begun: Path) -> Callable[[], bool]:
    """Whether the shell, which writes its number there, runs ``sleep 60``: a program that is just
    being made may miss an interrupt."""

    def ready() -> bool:
        with suppress(OSError, ValueError):
            shell = int(begun.read_text())
            children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
            names = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
            return b"sleep\x0060\0" in names
        return False

    return ready
