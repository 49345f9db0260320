"""The client's end of a WebSocket, against servers that say what they like."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from sandbox.cli import websocket
from sandbox.cli.restclient import RestClient
from sandbox.cli.websocket import connect
from sandbox.errors import InfrastructureError, NotPermitted

pytestmark = pytest.mark.anyio

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9

Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def frame(opcode: int, data: bytes, *, is_last: bool = True) -> bytes:
    """A frame of a server, which masks nothing."""
    size = len(data)
    head = bytes([opcode | (0x80 if is_last else 0)])
    if size < 126:
        return head + bytes([size]) + data
    return (
        head
        + (struct.pack("!BH", 126, size) if size < 65536 else struct.pack("!BQ", 127, size))
        + data
    )


def accepted(request: bytes) -> bytes:
    """The answer to a handshake."""
    key = next(
        line.split(b": ")[1]
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    digest = base64.b64encode(hashlib.sha1(key + GUID.encode()).digest())  # noqa: S324  # RFC 6455
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + digest + b"\r\n\r\n"
    )


@asynccontextmanager
async def server(say: Say, answer: Callable[[bytes], bytes] = accepted) -> AsyncIterator[str]:
    """A server that answers handshakes so, and then says what it is told to."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        asked.append(request)
        writer.write(answer(request))
        await say(reader, writer)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    assert all(b"Authorization: Bearer secret-token" in request for request in asked)


def says(*frames: bytes) -> Say:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(frames))

    return say


async def test_messages_come_whole_and_pings_are_answered() -> None:
    heard = asyncio.Event()

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(BINARY, b"ab", is_last=False) + frame(PING, b"?") + frame(0, b"c"))
        writer.write(frame(TEXT, b'{"x": 1}'))
        assert (await reader.readexactly(2))[0] & 15 == 10  # a pong
        heard.set()
        writer.write(frame(CLOSE, struct.pack("!H", 1000)))

    with anyio.fail_after(10):
        async with server(say) as url, connect(url, "/x", "secret-token", None) as channel:
            assert await channel.receive() == b"abc"
            assert await channel.receive() == {"x": 1}
            await heard.wait()
            assert await channel.receive() is None


async def test_a_refusal_is_the_error_that_it_was() -> None:
    body = json.dumps({"code": "not_permitted", "detail": "No.", "remedy": "Ask."}).encode()
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with server(says(), lambda _: head + body) as url:
        with anyio.fail_after(10), pytest.raises(NotPermitted) as caught:
            await connect(url, "/x", "secret-token", None).__aenter__()
    assert (caught.value.message, caught.value.remedy) == ("No.", "Ask.")


@pytest.mark.parametrize(
    "frames",
    [
        (frame(TEXT, b"[1]"),),
        (frame(TEXT, b"nonsense"),),
        (frame(TEXT, b"[" * 100_000),),
        (b"\xff\xff\xff\xff",),
        (frame(BINARY, b"x" * 600), frame(BINARY, b"x" * 600)),
    ],
)
async def test_what_makes_no_sense_or_is_too_long_is_an_error(
    frames: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "MAX_MESSAGE_BYTES", 500)
    with anyio.fail_after(10), pytest.raises(InfrastructureError):
        async with server(says(*frames)) as url, connect(url, "/x", "secret-token", None) as client:
            await client.receive()


async def test_a_server_that_ends_with_a_reason_is_believed() -> None:
    closed = frame(CLOSE, struct.pack("!H", 4408) + b"It lasted too long.")
    with anyio.fail_after(10), pytest.raises(InfrastructureError, match="lasted too long"):
        async with server(says(closed)) as url, connect(url, "/x", "secret-token", None) as client:
            await client.receive()


async def test_a_server_that_does_not_shake_hands_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "HANDSHAKE_S", 0.1)
    is_over = asyncio.Event()

    async def wait(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await is_over.wait()

    with anyio.fail_after(10):
        async with server(wait, lambda _: b"") as url:
            with pytest.raises(InfrastructureError, match="does not answer"):
                await connect(url, "/x", "secret-token", None).__aenter__()
            is_over.set()


async def test_a_channel_is_asked_for_below_the_path_of_the_servers_url() -> None:
    lines: list[bytes] = []

    def answer(request: bytes) -> bytes:
        lines.append(request.split(b"\r\n")[0])
        return accepted(request)

    with anyio.fail_after(10):
        async with (
            server(says(), answer) as url,
            RestClient(f"{url}/below/mcp/v1", "secret-token") as client,
            client.channel("sessions", "s-1", "kernel"),
        ):
            pass
    assert lines == [b"GET /below/mcp/v1/sessions/s-1/kernel HTTP/1.1"]


async def test_nobody_there_is_said() -> None:
    with pytest.raises(InfrastructureError, match="does not answer"):
        async with connect("http://127.0.0.1:9", "/x", "secret-token", None):
            raise AssertionError
