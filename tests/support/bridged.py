"""The bridge's end of ZeroMQ over a kernel that is played, and clients of it."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import zmq
import zmq.asyncio

from sandbox.jupyter.connection import CHANNELS, Connection
from sandbox.jupyter.relay import Relay
from sandbox.jupyter.sandboxedkernel import Ended
from sandbox.jupyter.signing import Signer
from sandbox.jupyter.sockets import ClientSockets
from sandbox.kernels.jupytermessages import JupyterMessage, answer
from sandbox.kernels.messages import made_header

WAIT_S = 10
KEY = "key-of-the-connection-file"


class PlayedKernel:
    """A kernel that says what a test has it say; what was sent to it can be looked at."""

    session_id = "s-played"

    def __init__(self) -> None:
        self.denied: tuple[str, ...] = ()
        self.sent: list[JupyterMessage] = []
        self._said, self._heard = anyio.create_memory_object_stream[JupyterMessage | Ended](1000)
        self._news = anyio.Event()

    async def send(self, message: JupyterMessage) -> None:
        self.sent.append(message)
        self._news.set()
        self._news = anyio.Event()

    async def heard(self) -> AsyncGenerator[JupyterMessage | Ended]:
        async for each in self._heard:
            yield each

    async def interrupt(self) -> None:
        """Nothing runs."""

    async def restart(self) -> None:
        """It answers already."""

    def denials(self) -> tuple[str, ...]:
        told, self.denied = self.denied, ()
        return told

    async def got(self, count: int = 1) -> JupyterMessage:
        """The latest request, when there are so many."""
        with anyio.fail_after(WAIT_S):
            while len(self.sent) < count:
                await self._news.wait()
        return self.sent[-1]

    def say(self, channel: str, kind: str, parent: JupyterMessage, **content: Any) -> None:
        """Say something that belongs to a request."""
        self._said.send_nowait(answer(channel, kind, content, parent.header, "k"))

    def close(self) -> None:
        """Say nothing any more."""
        self._said.close()
        self._heard.close()

    def end(self, reason: str, *, for_good: bool = False) -> None:
        """Die."""
        self._said.send_nowait(Ended(reason, is_for_good=for_good))


@dataclass
class Client:
    """A client with its own sockets; what it signs may be signed wrong."""

    signer: Signer
    sockets: dict[str, zmq.asyncio.Socket]

    async def ask(
        self, channel: str, kind: str, signer: Signer | None = None, **content: Any
    ) -> str:
        """Send a request; its id."""
        header = made_header(kind, "client")
        body = json.dumps(content).encode()
        frames = (signer or self.signer).frames(JupyterMessage(channel, header, {}, body))
        await self.sockets[channel].send_multipart(frames)
        return header["msg_id"]

    async def hear(self, channel: str) -> tuple[str, str, dict[str, Any]]:
        """The next message: its type, its parent's id and its content."""
        with anyio.fail_after(WAIT_S):
            frames = await self.sockets[channel].recv_multipart()
        at = frames.index(b"<IDS|MSG>")
        header, parent, _, content = (json.loads(each) for each in frames[at + 2 : at + 6])
        return header["msg_type"], parent.get("msg_id", ""), content


@dataclass
class Bridged:
    """A relay with its sockets bound."""

    kernel: PlayedKernel
    relay: Relay
    info: dict[str, Any]
    ended: list[tuple[int, str]]
    finished: anyio.Event = field(default_factory=anyio.Event)

    @asynccontextmanager
    async def client(self, *, subscribes: bool = True) -> AsyncIterator[Client]:
        """A client, which hears from the first on, or only asks."""
        context = zmq.asyncio.Context()
        sockets: dict[str, Any] = {}
        addresses = Connection.of(self.info).addresses
        try:
            for channel in CHANNELS:
                kind = {"iopub": zmq.SUB, "hb": zmq.REQ}.get(channel, zmq.DEALER)
                if channel == "iopub" and not subscribes:
                    continue
                sockets[channel] = context.socket(kind)
                if kind == zmq.SUB:
                    sockets[channel].subscribe(b"")
                elif kind == zmq.DEALER:
                    sockets[channel].setsockopt(zmq.IDENTITY, str(id(sockets)).encode())
                sockets[channel].connect(addresses[channel])
            client = Client(Signer(KEY.encode(), "hmac-sha256"), sockets)
            if subscribes:
                assert (await client.hear("iopub"))[0] == "iopub_welcome"
            yield client
        finally:
            context.destroy(linger=0)


def connection_info(**more: Any) -> dict[str, Any]:
    """A connection file with free ports."""
    taken = [socket.socket() for _ in CHANNELS]
    for each in taken:
        each.bind(("127.0.0.1", 0))
    ports = {f"{name}_port": s.getsockname()[1] for name, s in zip(CHANNELS, taken, strict=True)}
    for each in taken:
        each.close()
    made = {"transport": "tcp", "ip": "127.0.0.1", "key": KEY, "signature_scheme": "hmac-sha256"}
    return {**made, **ports, **more}


@asynccontextmanager
async def bridged() -> AsyncIterator[Bridged]:
    """A relay before a played kernel."""
    kernel, info = PlayedKernel(), connection_info()
    sockets = ClientSockets(Connection.of(info))
    ended: list[tuple[int, str]] = []
    finished = anyio.Event()
    relay = Relay(kernel, sockets, lambda code, why: ended.append((code, why)), finished.set)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sockets.serve, relay.take, relay.alive)
        tasks.start_soon(relay.listen)
        try:
            yield Bridged(kernel, relay, info, ended, finished)
        finally:
            tasks.cancel_scope.cancel()
            sockets.close()
            kernel.close()
