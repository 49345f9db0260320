"""What a command wrote: the log of its bytes, bounded, until they are acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from itertools import islice
from typing import Any

LIMIT_BYTES = 4 * 1024 * 1024
ENTRY_OVERHEAD = 256
"""What keeping an entry costs beside its bytes."""
JOINED_BYTES = 64 * 1024
"""Pieces of one stream are joined up to this size."""
READ_ENTRIES = 64


class OutputLog:
    """The bytes of both outputs in the order in which they came; a position counts both.

    Nothing is ever dropped: when the log is full the command waits, whether somebody reads or not.
    It is never kept waiting for longer than its time.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._entries: deque[tuple[int, int, bytes]] = deque()
        """Where each begins, its tag and its bytes."""
        self._size = 0
        self._is_closed = False
        self._changed = asyncio.Event()
        self.first = self.last = 0
        """The positions before the oldest byte that is kept, and behind the newest one."""
        self.ending: Mapping[str, Any] | None = None
        """How the command ended; None while more can come."""

    async def append(self, data: bytes, tag: int) -> None:
        """Keep what came next, as soon as there is room."""
        while self._size >= self._limit and not self._is_closed:
            await self._changed.wait()
        if self._is_closed:
            return
        start, kept_tag, kept = self._entries[-1] if self._entries else (0, -1, b"")
        if kept_tag == tag and len(kept) + len(data) <= JOINED_BYTES:
            self._entries[-1] = (start, tag, kept + data)
        else:
            self._entries.append((self.last, tag, data))
            self._size += ENTRY_OVERHEAD
        self._size += len(data)
        self.last += len(data)
        self._bump()

    def finish(self, ending: Mapping[str, Any]) -> None:
        """Say how the command ended; nothing more comes."""
        self.ending = ending
        self._bump()

    def acknowledge(self, position: int) -> None:
        """Forget what lies before a position, in whole entries."""
        while self._entries and self.first + len(self._entries[0][2]) <= position:
            data = self._entries.popleft()[2]
            self._size -= len(data) + ENTRY_OVERHEAD
            self.first += len(data)
        self._bump()

    def close(self) -> None:
        """Forget all, and take nothing more."""
        self._is_closed = True
        self.acknowledge(self.last)

    async def follow(self, position: int) -> AsyncGenerator[tuple[int, bytes]]:
        """The tag and bytes of all from a position on, as it comes, until the command has ended."""
        while True:
            for start, tag, data in self._read(position):
                yield tag, data[max(0, position - start) :]
                position = start + len(data)
            if position >= self.last:
                if self.ending is not None or self._is_closed:
                    return
                await self._changed.wait()

    def _read(self, position: int) -> list[tuple[int, int, bytes]]:
        behind = 0
        for start, _, data in reversed(self._entries):
            if start + len(data) <= position:
                break
            behind += 1
        first = len(self._entries) - behind
        return list(islice(self._entries, first, first + READ_ENTRIES))

    def _bump(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
