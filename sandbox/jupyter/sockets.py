"""The five ZeroMQ sockets of a kernel, at which its clients find the one in the sandbox."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import zmq

from sandbox.errorgroups import one_error
from sandbox.errors import InfrastructureError, InvalidRequest
from sandbox.jupyter.connection import Connection
from sandbox.jupyter.zmqsocket import AsyncSocket
from sandbox.kernels.jupytermessages import JupyterMessage, answer

REQUESTS = ("shell", "control", "stdin")
FIRST_SUBSCRIBER_S = 1.0
"""So long what a client asks first waits for somebody who hears what comes of it."""
PUBLISHED = 10_000
"""Messages that wait for a client who reads slowly; then the kernel's others wait, too."""
PATIENCE_S = 10.0
"""How long; after that a client who reads nothing misses what it does not take."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

logger = logging.getLogger(__name__)

Request = Callable[[list[bytes], JupyterMessage], Awaitable[None]]
"""Takes what a client asks, with the identities that lead back to it."""


class ClientSockets:
    """The sockets of one connection file, bound until :meth:`close`.

    Raises:
        InfrastructureError: One cannot be bound.
    """

    def __init__(self, connection: Connection) -> None:
        self._signer = connection.signer
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 64)
        self._sockets: dict[str, AsyncSocket] = {}
        self._subscribed = anyio.Event()
        for channel, address in connection.addresses.items():
            try:
                self._bind(channel, address)
            except zmq.ZMQError as exc:
                self.close()
                raise InfrastructureError(
                    f"The kernel's {channel} cannot be bound to {address}: {exc}."
                ) from exc

    def _bind(self, channel: str, address: str) -> None:
        kind = {"iopub": zmq.XPUB, "hb": zmq.REP}.get(channel, zmq.ROUTER)
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        if channel == "iopub":
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)
            socket.setsockopt(zmq.XPUB_NODROP, 1)
            socket.setsockopt(zmq.SNDHWM, PUBLISHED)
        elif channel in REQUESTS:
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._sockets[channel] = AsyncSocket(socket)
        socket.bind(address)

    def close(self) -> None:
        """Close them; what no client has taken by now is lost. May be called twice."""
        for socket in self._sockets.values():
            socket.close()
        self._context.destroy(linger=0)

    async def serve(self, take: Request, alive: Callable[[], Awaitable[object]]) -> None:
        """Hand over what clients ask, tell subscribers that they are heard, echo heartbeats.

        Args:
            alive: Returns while the kernel lives, and waits while it does not.
        """
        async with one_error() as tasks:
            for channel in REQUESTS:
                tasks.start_soon(self._hear, channel, take)
            tasks.start_soon(self._see_subscribers)
            tasks.start_soon(self._beat, alive)

    async def publish(self, message: JupyterMessage, topic: bytes = b"") -> None:
        """Send to all subscribers; waits for those who read slowly, within a bound."""
        frames = [topic, *self._signer.frames(message)] if topic else self._signer.frames(message)
        socket = self._sockets["iopub"]
        if socket.offer(frames):
            return
        with anyio.move_on_after(PATIENCE_S) as waiting:
            await socket.send(frames)
        if waiting.cancelled_caught:
            logger.warning("a client of the kernel does not read; it misses what it is told")
            socket.set(zmq.XPUB_NODROP, 0)

    async def answer(self, identities: list[bytes], message: JupyterMessage) -> None:
        """Send to one client; one that has gone misses it."""
        socket = self._sockets[message.channel]
        await socket.send([*identities, *self._signer.frames(message)])

    async def _hear(self, channel: str, take: Request) -> None:
        socket = self._sockets[channel]
        while True:
            frames = await socket.receive()
            try:
                opened = self._signer.opened(channel, frames)
            except InvalidRequest as exc:
                logger.warning("%s: a message is left out: %s", channel, exc)
                continue
            if not self._subscribed.is_set():
                with anyio.move_on_after(FIRST_SUBSCRIBER_S):
                    await self._subscribed.wait()
                self._subscribed.set()
            await take(*opened)

    async def _see_subscribers(self) -> None:
        socket = self._sockets["iopub"]
        while True:
            (wish,) = (await socket.receive())[:1]
            if wish[:1] == b"\x01":
                with suppress(UnicodeDecodeError):
                    content = {"subscription": wish[1:].decode()}
                    welcome = answer("iopub", "iopub_welcome", content, {}, "sandbox")
                    await self.publish(welcome, wish[1:])
                self._subscribed.set()

    async def _beat(self, alive: Callable[[], Awaitable[object]]) -> None:
        socket = self._sockets["hb"]
        while True:
            beat = await socket.receive()
            await alive()
            await socket.send(beat)
