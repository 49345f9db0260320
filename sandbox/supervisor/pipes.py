"""Descriptors that do not block: a link's byte stream, a child's pipes, sockets that listen."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Iterable

READ_SIZE = 256 * 1024
PIPE_SIZE = 1024 * 1024
ACCEPT_AGAIN_S = 0.05


def prepare(fd: int) -> None:
    """Make a descriptor non-blocking and private and, if it is a pipe, as roomy as allowed."""
    os.set_blocking(fd, False)
    os.set_inheritable(fd, False)
    with contextlib.suppress(OSError):  # not a pipe, or the uid's share of pipe memory is used up
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)


class Descriptor:
    """One non-blocking descriptor, owned; reading and writing wait in the event loop."""

    def __init__(self, fd: int) -> None:
        prepare(fd)
        self._fd = fd
        self._readers: set[asyncio.Future[None]] = set()
        self._writers: set[asyncio.Future[None]] = set()
        self._is_watched = False
        """Whether the loop looks whether it can be read from: for as long as somebody wants it,
        and until it is found that nobody does, for to begin and end that each time costs more."""

    @property
    def fd(self) -> int:
        """The descriptor; -1 once closed."""
        return self._fd

    async def read(self, size: int = READ_SIZE) -> bytes:
        """The next bytes, at most ``size``; empty at the end, or once closed."""
        has_waited = False
        while self._fd >= 0:
            try:
                data = os.read(self._fd, size)
            except BlockingIOError:
                await self._ready(write=False)
                has_waited = True
            except OSError:  # a reset socket, or a pty whose last process has gone
                return b""
            else:
                if not has_waited:
                    await asyncio.sleep(0)  # a flood must not keep the loop from everyone else
                return data
        return b""

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting while the other side does not take it.

        Raises:
            OSError: The other side is gone, or this end was closed.
        """
        view = memoryview(data)
        while view:
            if self._fd < 0:
                raise BrokenPipeError("closed")
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._ready(write=True)

    def close(self) -> None:
        """Close the descriptor and wake whoever waits for it; may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            os.close(fd)
        _wake(self._readers | self._writers)

    async def _ready(self, *, write: bool) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        waiters = self._writers if write else self._readers
        waiters.add(waiter)
        # For all who wait: the loop knows one callback of a descriptor for each direction.
        if write:
            loop.add_writer(self._fd, _wake, waiters)
        elif not self._is_watched:
            self._is_watched = True
            loop.add_reader(self._fd, self._readable)
        try:
            await waiter
        finally:
            waiters.discard(waiter)
            if write and self._fd >= 0 and not waiters:
                loop.remove_writer(self._fd)

    def _readable(self) -> None:
        if all(waiter.done() for waiter in self._readers):
            self._is_watched = False
            asyncio.get_running_loop().remove_reader(self._fd)
        _wake(self._readers)


class PipePair:
    """A link's byte stream over two descriptors, as ``ByteStream`` wants it."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._reader = Descriptor(read_fd)
        self._writer = Descriptor(write_fd)

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        return await self._reader.read()

    async def write(self, data: bytes) -> None:
        """Write all of it."""
        await self._writer.write(data)

    async def close(self) -> None:
        """Close both directions."""
        self._reader.close()
        self._writer.close()


async def accept(listener: socket.socket, places: asyncio.Semaphore) -> socket.socket:
    """The next connection, once there is a place for it, which whoever serves it gives back."""
    await places.acquire()
    while True:
        try:
            return (await asyncio.get_running_loop().sock_accept(listener))[0]
        except OSError:  # too many open files: somebody here exhausts them
            await asyncio.sleep(ACCEPT_AGAIN_S)


def _wake(waiters: Iterable[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
