"""The client's end of a channel that is a WebSocket of a served controller."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError as BadFrames

from sandbox.cli.remoteerrors import ended, of_problem
from sandbox.errors import InfrastructureError, ProtocolError, SandboxError
from sandbox.server.channels.channel import Message

CONNECT_S = 10.0
HANDSHAKE_S = 60.0
READ_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024
"""Of the bytes that are sent, so much goes in one message."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_PROBLEM_BYTES = 64 * 1024


class SocketClient:
    """One connection; its server is believed no more than is needed."""

    def __init__(self, stream: ByteStream, host: str, target: str, token: str) -> None:
        self._stream = stream
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._sending = anyio.Lock()
        self._events: list[Event] = []
        self._host, self._target, self._token = host, target, token
        self._is_over = False

    async def shake_hands(self) -> None:
        """Ask for the connection.

        Raises:
            SandboxError: The server refuses it.
        """
        headers = [(b"Authorization", f"Bearer {self._token}".encode())]
        request = Request(host=self._host, target=self._target, extra_headers=headers)
        await self._send(request)
        event = await self._next()
        if isinstance(event, AcceptConnection):
            return
        body = bytearray()
        while isinstance(event, RejectConnection | RejectData):
            if isinstance(event, RejectData):
                body += event.data
                if event.body_finished or len(body) > MAX_PROBLEM_BYTES:
                    break
            elif not event.has_body:
                break
            event = await self._next()
        raise of_problem(bytes(body), "The server refused the connection.")

    async def send(self, message: Message) -> None:
        """Send a message; long bytes go as several."""
        if isinstance(message, bytes):
            for at in range(0, len(message), PIECE_BYTES):
                await self._send(BytesMessage(data=message[at : at + PIECE_BYTES]))
        else:
            await self._send(TextMessage(data=json.dumps(message)))

    async def send_whole(self, message: bytes | str) -> None:
        """Send bytes or a text as one message, however long that is."""
        is_text = isinstance(message, str)
        await self._send(TextMessage(data=message) if is_text else BytesMessage(data=message))

    async def receive(self) -> Message | None:
        """The next message; None when the server has gone."""
        parts: list[bytes | str] = []
        size = 0
        while (event := await self._next()) is not None:
            if isinstance(event, TextMessage | BytesMessage):
                parts.append(bytes(event.data) if isinstance(event, BytesMessage) else event.data)
                size += len(event.data)
                if size > MAX_MESSAGE_BYTES:
                    raise ProtocolError("The server sent a message that is too long.")
                if event.message_finished:
                    return _message(parts)
            elif isinstance(event, Ping):
                await self._send(event.response())
            elif isinstance(event, CloseConnection):
                self._is_over = True
                with suppress(SandboxError):
                    await self._send(event.response())
                if event.code not in (1000, 1005) and event.reason:
                    raise ended(event.reason)
                return None
        return None

    async def close(self) -> None:
        """Say that it is over."""
        if not self._is_over:
            with suppress(SandboxError), anyio.move_on_after(2, shield=True):
                await self._send(CloseConnection(code=1000))
                while not self._is_over and await self.receive() is not None:
                    pass

    async def _next(self) -> Event | None:
        while not self._events:
            try:
                data = await self._stream.receive(READ_BYTES)
            except anyio.EndOfStream:
                return None
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError) as exc:
                raise _lost() from exc
            try:
                self._ws.receive_data(data)
                self._events = list(self._ws.events())
            except BadFrames as exc:
                raise ProtocolError("The server's frames make no sense.") from exc
        return self._events.pop(0)

    async def _send(self, event: Event) -> None:
        async with self._sending:
            try:
                await self._stream.send(self._ws.send(event))
            except BadFrames as exc:
                raise _lost() from exc
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError) as exc:
                raise _lost() from exc


@asynccontextmanager
async def connect(
    url: str, target: str, token: str, tls: ssl.SSLContext | None
) -> AsyncGenerator[SocketClient]:
    """A WebSocket of a server, until the block ends.

    Raises:
        SandboxError: The server does not answer, or refuses it.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if tls else 80)
    try:
        with anyio.fail_after(CONNECT_S):
            stream = await (
                anyio.connect_tcp(host, port, ssl_context=tls, tls_standard_compatible=False)
                if tls
                else anyio.connect_tcp(host, port)
            )
    except (OSError, TimeoutError) as exc:
        raise InfrastructureError(
            f"{url} does not answer: {exc or 'it took too long'}.",
            remedy="Start it with `sandbox serve`, or look at --url and SANDBOX_URL.",
        ) from exc
    async with stream:
        client = SocketClient(stream, parts.netloc.rpartition("@")[2], target, token)
        try:
            with anyio.fail_after(HANDSHAKE_S):
                await client.shake_hands()
        except TimeoutError as exc:
            raise InfrastructureError(
                f"{url} took the connection and does not answer.",
                remedy="Look whether that is the address of a sandbox server.",
            ) from exc
        try:
            yield client
        finally:
            await client.close()


def _message(parts: list[bytes | str]) -> Message:
    if all(isinstance(part, bytes) for part in parts):
        return b"".join(cast("list[bytes]", parts))
    try:
        found: object = json.loads("".join(map(str, parts)))
    except (ValueError, RecursionError) as exc:
        raise ProtocolError("The server sent text that is not JSON.") from exc
    if not isinstance(found, dict):
        raise ProtocolError("The server sent JSON that is not an object.")
    return cast("dict[str, Any]", found)


def _lost() -> InfrastructureError:
    return InfrastructureError(
        "The connection to the server was lost.",
        remedy="What ran in the session may have been stopped; `sandbox sessions list` says more.",
    )
