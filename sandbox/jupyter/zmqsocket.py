"""A ZeroMQ socket on the event loop, without a future for each message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import zmq

_NOW = int(zmq.DONTWAIT)
_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
_READABLE, _WRITABLE = int(zmq.POLLIN), int(zmq.POLLOUT)


class AsyncSocket:
    """One socket, which one task reads and any number write to; made in the loop's thread.

    ZeroMQ's descriptor only says that something has changed, and any call may take note of that in
    its stead. So it is looked at what has changed after each call.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._fd = cast("int", socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._look)

    def set(self, option: int, value: int) -> None:
        """Set an option of ZeroMQ's."""
        self._socket.setsockopt(option, value)

    async def receive(self) -> list[bytes]:
        """The parts of the next message; once closed, this never returns."""
        while True:
            self._readable.clear()
            if not self._is_closed:
                try:
                    return self._socket.recv_multipart(_NOW)
                except zmq.Again:
                    pass
                finally:
                    self._look()
            await self._readable.wait()

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send a message; waits while the socket has no room. Once closed, nothing is sent."""
        while not self.offer(frames):
            await self._writable.wait()

    def offer(self, frames: Sequence[bytes]) -> bool:
        """Send a message if there is room at once, and say whether there was."""
        if self._is_closed:
            return True
        self._writable.clear()
        try:
            self._put(frames)
        except zmq.Again:
            return False
        finally:
            self._look()
        return True

    def close(self) -> None:
        """Close it, and let go of what waits to be sent; harmless when done already."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._fd)
            self._socket.close(linger=0)
            self._writable.set()

    def _put(self, frames: Sequence[bytes]) -> None:
        *first, last = frames
        for frame in first:  # only the first of them may find no room
            self._socket.send(frame, _MORE)
        self._socket.send(last, _NOW)

    def _look(self) -> None:
        """Take note of what has changed, and tell those who wait for it."""
        if self._is_closed:
            return
        events = int(self._socket.getsockopt(zmq.EVENTS))
        if events & _READABLE:
            self._readable.set()
        if events & _WRITABLE:
            self._writable.set()
