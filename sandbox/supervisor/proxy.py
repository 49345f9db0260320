"""The way out: connections to a local port, each carried to the controller's gateway.

Programs find it as their proxy. Nothing is read or decided here; the gateway does that, outside.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Awaitable, Callable

from sandbox.errors import SandboxError
from sandbox.link import wire
from sandbox.link.link import Link, first_error
from sandbox.link.stream import Stream
from sandbox.supervisor.pipes import accept
from sandbox.supervisor.tasks import Background

HOST = "127.0.0.1"
PORT = 3128
MAX_CONNECTIONS = 240


class LocalProxy:
    """Listens for programs that want out."""

    def __init__(self, link: Callable[[], Awaitable[Link | None]], tasks: Background) -> None:
        self._link = link
        self._tasks = tasks
        # Of our own descriptors, so that kernels and commands can always be started.
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._slots = asyncio.Semaphore(min(MAX_CONNECTIONS, descriptors // 4))

    async def run(self) -> None:
        """Serve until cancelled."""
        with _listener() as listener:
            while True:
                self._tasks.start(self._serve(await accept(listener, self._slots)))

    async def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link = await self._link()
                if link is not None:
                    await _carry(client, link.open("egress"))
        except (OSError, SandboxError):
            pass  # either side has gone, or the link is full
        finally:
            self._slots.release()


async def _carry(client: socket.socket, stream: Stream) -> None:
    """Move bytes both ways until both sides have ended, or one has gone."""
    loop = asyncio.get_running_loop()

    async def send() -> None:
        while data := await loop.sock_recv(client, wire.PIECE_SIZE):
            await stream.send(data)
        stream.end()

    async def receive() -> None:
        async for message in stream:
            await loop.sock_sendall(client, message.data)
        client.shutdown(socket.SHUT_WR)

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            tasks.create_task(receive())
    except BaseException as exc:
        stream.reset()
        raise first_error(exc) from None


def _listener() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, int(os.environ.get("SANDBOX_EGRESS_PORT", PORT))))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
