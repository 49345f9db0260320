"""Whether the engine's host has memory for another sandbox, by what is free of it now.

What sessions were promised is another question (``sandbox.sessions.overcommit``): most use little
of it. Here the host's kernel is asked, where that is this machine's, so that whoever wants one more
session than there is room for is told so, before the host ends a session of somebody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sandbox.errors import QuotaExceeded
from sandbox.policy.units import MIB, format_size
from sandbox.runtimes.base import EngineInfo
from sandbox.sessions.overcommit import PROC, memory_of_engine

IDLE_BYTES = 64 * MIB
"""What a sandbox uses of memory that has just been opened, or little more."""
SOONEST_S, LATEST_S = 5, 60
"""When to try again, at the least and at the most."""


class Capacity:
    """How many sandboxes fit into the memory of the engine's host.

    Args:
        reserve_bytes: What is kept free of it.
        proc: Where this machine's kernel tells of itself.
    """

    def __init__(self, reserve_bytes: int, proc: Path = PROC) -> None:
        self._reserve_bytes = reserve_bytes
        self._proc = proc

    def room(self, engine: EngineInfo) -> int | None:
        """How many sandboxes fit besides those there are; None where that cannot be known."""
        free_bytes = memory_of_engine(engine, "MemAvailable", self._proc)
        if free_bytes is None:
            return None
        return max(free_bytes - self._reserve_bytes, 0) // IDLE_BYTES

    def check(self, engine: EngineInfo, coming: int, ends_in_s: Iterable[float]) -> None:
        """Refuse one more.

        Args:
            coming: Those that are being made, whose memory is not yet in use.
            ends_in_s: When each session is over that is not used any more.

        Raises:
            QuotaExceeded: There is no room; says when to try again.
        """
        room = self.room(engine)
        if room is None or room > coming:
            return
        free_bytes = memory_of_engine(engine, "MemAvailable", self._proc) or 0
        soon_s = min(max(int(min(ends_in_s, default=LATEST_S)), SOONEST_S), LATEST_S)
        raise QuotaExceeded(
            f"The host is at capacity: {_size(free_bytes)} of its memory are free, of which "
            f"{_size(self._reserve_bytes)} are kept, and a session needs {_size(IDLE_BYTES)}.",
            remedy=f"Try again in {soon_s} s, or close a session that is no longer needed.",
        )


def _size(size_bytes: int) -> str:
    return format_size(size_bytes // MIB * MIB)
