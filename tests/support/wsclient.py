"""A WebSocket client that says exactly what it is told to, well-formed or not."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import anyio

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode: int, data: bytes, *, is_last: bool = True) -> bytes:
    """A masked frame (RFC 6455, section 5.2); the mask is zero, which changes nothing."""
    first = (0x80 if is_last else 0) | opcode
    if len(data) < 126:
        head = struct.pack("!BB", first, 0x80 | len(data))
    elif len(data) < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, len(data))
    return head + bytes(4) + data


@dataclass(frozen=True)
class Answer:
    """What a handshake was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class WsClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.answer: Answer

    @classmethod
    async def to(
        cls,
        port: int,
        path: str,
        headers: Mapping[str, str] | None = None,
        protocols: Iterable[str] = (),
    ) -> WsClient:
        """Connect and shake hands; whether it was accepted is in ``answer``."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        wanted = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **(headers or {}),
        }
        if protocols := tuple(protocols):
            wanted["Sec-WebSocket-Protocol"] = ", ".join(protocols)
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in wanted.items())]
        client.say("\r\n".join([*lines, "", ""]).encode())
        with anyio.fail_after(5):
            client.answer = await client._answered()
        return client

    async def _answered(self) -> Answer:
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        code = int(status.split()[1])
        return Answer(code, headers, b"" if code == 101 else await self._reader.read())

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)

    async def drained(self) -> None:
        """Wait until they are on their way."""
        await self._writer.drain()

    async def heard(self, patience_s: float = 5) -> tuple[int, bytes]:
        """The next frame: its opcode and data; opcode 0 when the connection is over."""
        try:
            with anyio.fail_after(patience_s):
                first, length = await self._reader.readexactly(2)
                if length == 126:
                    (length,) = struct.unpack("!H", await self._reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
                return first & 15, await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, b""

    async def close_code(self) -> int:
        """The code with which the server closes, whatever it says before; 0 when it just goes."""
        while True:
            opcode, data = await self.heard()
            if opcode == CLOSE:
                return struct.unpack("!H", data[:2])[0]
            if opcode == 0:
                return 0

    def close(self) -> None:
        """Go away without a word."""
        self._writer.transport.abort()
