"""How much a snapshot may take: of entries, of memory, of time."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress

from sandbox.errors import QuotaExceeded, TooMuchWork

MAX_ENTRIES = 300_000
LIMIT_S = 60.0
RESERVE_BYTES = 32 * 1024**2
"""What a snapshot leaves of the session's memory to whoever else needs some."""
_LOOK_BYTES = 4 * 1024**2
_LOOK_ENTRIES = 1000


class Memory:
    """What this process may use: its own, counted from where it began.

    Args:
        limit_bytes: What all snapshots together may take.
        reserve_bytes: What is to stay free of the session's memory.
    """

    def __init__(self, limit_bytes: int, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._reserve_bytes = reserve_bytes
        self._began_with = _resident()

    def held_bytes(self) -> int:
        """What the snapshots take now."""
        return max(0, _resident() - self._began_with)

    def check(self, before_bytes: int) -> None:
        """Look whether there is room for more.

        Args:
            before_bytes: What the snapshots took before another one was begun.

        Raises:
            QuotaExceeded: There is not; says how much there is of what.
        """
        held = self.held_bytes()
        copied = mib(max(0, held - before_bytes))
        if held > self.limit_bytes:
            raise QuotaExceeded(
                f"The snapshot does not fit. All of a session together may take "
                f"{mib(self.limit_bytes)}; those that there are take {mib(before_bytes)}, and "
                f"{copied} of this one were copied when it was too much. Nothing was changed.",
                remedy="Drop a checkpoint that is not needed any more, or delete files.",
            )
        free = _free()
        if free is not None and free < self._reserve_bytes:
            raise QuotaExceeded(
                f"The snapshot does not fit. Of the session's memory {mib(free)} are free, and "
                f"{mib(self._reserve_bytes)} are to stay free; the snapshots that there are take "
                f"{mib(before_bytes)}, and {copied} of this one were copied. Nothing was changed.",
                remedy="Drop a checkpoint that is not needed any more, or free memory.",
            )

    def give_back(self) -> None:
        """Give what was freed back to the system, which counts it as used until then."""
        with suppress(AttributeError):  # of another libc
            ctypes.CDLL(None).malloc_trim(0)


class Bounds:
    """The bounds of one operation."""

    def __init__(self, memory: Memory, *, limit_s: float = LIMIT_S) -> None:
        self._memory = memory
        self._limit_s = limit_s
        self._until = time.monotonic() + limit_s
        self._before_bytes = memory.held_bytes()
        self._entries = 0
        self._bytes = 0

    def entry(self) -> None:
        """Count one thing that is looked at.

        Raises:
            QuotaExceeded: There are too many, or there is no more room.
            TooMuchWork: It takes too long.
        """
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise QuotaExceeded(
                f"The workspace has more than {MAX_ENTRIES} files and folders, which is the most "
                "that a snapshot may have.",
                remedy="Delete some, or keep them in an archive.",
            )
        if self._entries % _LOOK_ENTRIES == 0:
            self.check()

    def room(self, size: int) -> None:
        """Count bytes that are kept; raises as :meth:`entry` does."""
        self._bytes += size
        if self._bytes >= _LOOK_BYTES:
            self._bytes = 0
            self.check()

    def time(self) -> None:
        """Look whether it takes too long.

        Raises:
            TooMuchWork: It does.
        """
        if time.monotonic() > self._until:
            raise TooMuchWork(
                f"It took longer than {self._limit_s:.0f} seconds and was given up.",
                remedy="Nothing was changed. Keep large data elsewhere than in the workspace.",
            )

    def check(self) -> None:
        """Look for both; raises as :meth:`entry` does."""
        self.time()
        self._memory.check(self._before_bytes)


def mib(size: int) -> str:
    """A number of bytes, to be read."""
    return f"{size / 1024**2:.1f} MiB"


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def _free() -> int | None:
    """What programs see of the session's memory; None where they see nothing."""
    with suppress(OSError, ValueError, IndexError), open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
