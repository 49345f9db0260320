"""The byte stream of an exec: the engine's framing taken off, standard error to the log."""

from __future__ import annotations

import asyncio
import json
import logging
import struct

from sandbox.errors import ProtocolError, SessionLost
from sandbox.link.link import printable
from sandbox.runtimes.docker.endpoint import READ_SIZE, Connection, Endpoint
from sandbox.runtimes.docker.faults import refused, unavailable

STDOUT, STDERR, SYSTEM_ERROR = 1, 2, 3
MAX_LINE = 1000
MAX_LINES = 100
MAX_ANSWER_BYTES = 64 * 1024
# The first byte of a link: the type of its HELLO frame.
_HELLO = 0

_HEADER = struct.Struct("!BxxxI")

logger = logging.getLogger(__name__)


class Demultiplexer:
    """Takes the engine's frames apart: ``stream:u8 0 0 0 length:u32 payload``. No I/O.

    Nothing but a header in pieces and the length still due is kept, so memory is bounded by what
    is fed.
    """

    def __init__(self) -> None:
        self._header = b""
        self._kind = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take received bytes and return what of them is standard output and standard error.

        Raises:
            ProtocolError: A frame is of no known stream.
        """
        view = memoryview(data)
        at, size = 0, len(data)
        output: list[memoryview] = []
        errors: list[memoryview] = []
        while at < size:
            if self._left:
                end = min(at + self._left, size)
                (output if self._kind == STDOUT else errors).append(view[at:end])
                self._left -= end - at
                at = end
                continue
            end = min(at + _HEADER.size - len(self._header), size)
            self._header += view[at:end]
            at = end
            if len(self._header) == _HEADER.size:
                self._kind, self._left = _HEADER.unpack(self._header)
                self._header = b""
                if self._kind not in (STDOUT, STDERR, SYSTEM_ERROR):
                    raise ProtocolError(f"the engine sent a frame of stream {self._kind}")
        return b"".join(output), b"".join(errors)


class ExecStream:
    """The standard input and output of an exec."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._name = name
        self._frames = Demultiplexer()
        self._errors = b""
        self._lines = 0
        self._begun = False

    async def read(self) -> bytes:
        """The next bytes of standard output; empty when the exec has ended.

        Raises:
            SessionLost: The engine says in words, where bytes of a link were due, that it could
                not start the exec.
            ProtocolError: The engine's framing is broken.
            OSError: The connection to the engine broke.
        """
        while data := await self._reader.read(READ_SIZE):
            output, errors = self._frames.feed(data)
            if errors:
                self._log(errors)
            if not output:
                continue
            if not self._begun and output[0] != _HELLO:
                text = printable(output[:MAX_LINE].decode(errors="replace").strip())
                raise SessionLost(f"The container's bridge could not be started: {text}")
            self._begun = True
            return output
        return b""

    async def write(self, data: bytes) -> None:
        """Write all of it to standard input, waiting while it is not taken.

        Raises:
            OSError: The connection to the engine broke.
        """
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Drop the connection; the engine closes the exec's input, which ends the bridge."""
        self._writer.transport.abort()

    def _log(self, data: bytes) -> None:
        *lines, rest = (self._errors + data).split(b"\n")
        self._errors = rest[:MAX_LINE]
        for line in lines[: MAX_LINES - self._lines]:
            self._lines += 1
            text = printable(line[:MAX_LINE].decode(errors="replace"), MAX_LINE)
            logger.warning("%s says: %s", self._name, text)
            if self._lines == MAX_LINES:
                logger.warning("%s says more than %d lines; no more is kept", self._name, MAX_LINES)


async def start_exec(endpoint: Endpoint, path: str, doing: str, timeout_s: float) -> Connection:
    """Start an exec and take its connection over, as `docker exec` does.

    Done here and not by docker-py, which hands out the socket from under its HTTP client: with TLS
    that cannot be read and written at once, and no transport of it fits asyncio.

    Raises:
        SandboxError: The engine refused, or did not answer as an engine does.
    """
    body = b'{"Detach":false,"Tty":false}'
    request = (
        f"POST {path} HTTP/1.1\r\nHost: docker\r\n"
        "Content-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection: Connection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = reader, writer = await endpoint.dial()
            writer.write(request.encode() + body)
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status in (101, 200):
                return connection
            raise refused(doing, status, await _message(reader, head))
    except BaseException as exc:
        if connection is not None:
            connection[1].transport.abort()
        if isinstance(exc, (OSError, EOFError, ValueError, IndexError)):
            raise unavailable(endpoint.url, exc) from exc
        raise


async def _message(reader: asyncio.StreamReader, head: bytes) -> str:
    """The reason in the answer of an engine that refused."""
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = min(int(value), MAX_ANSWER_BYTES)
    text = (await reader.readexactly(length)).decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text
