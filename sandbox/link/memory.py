"""A byte stream between two ends in one process: for a link that needs no container."""

from __future__ import annotations

import asyncio
from collections import deque

CAPACITY_BYTES = 64 * 1024


class _Direction:
    """Bytes on their way from one end to the other, bounded like a socket's buffer."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._changed = asyncio.Event()

    async def put(self, data: bytes) -> None:
        while self._size >= CAPACITY_BYTES and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if self._closed:
            raise BrokenPipeError("the other end is closed")
        if data:
            self._chunks.append(data)
            self._size += len(data)
            self._changed.set()

    async def take(self) -> bytes:
        while not self._chunks and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._changed.set()
        return data

    def close(self) -> None:
        self._closed = True
        self._changed.set()


class MemoryStream:
    """One end of an in-memory byte stream; :func:`pipe` makes both."""

    def __init__(self, incoming: _Direction, outgoing: _Direction) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        return await self._incoming.take()

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting while the other end does not take it."""
        await self._outgoing.put(data)

    async def close(self) -> None:
        """Close both directions; may be called twice."""
        self.cut()

    def cut(self) -> None:
        """Close both directions at once, as a failing engine does."""
        self._incoming.close()
        self._outgoing.close()


def pipe() -> tuple[MemoryStream, MemoryStream]:
    """Make a byte stream and return its two ends."""
    there, back = _Direction(), _Direction()
    return MemoryStream(back, there), MemoryStream(there, back)
