"""The client's side of ZMTP 3.0, ZeroMQ's wire protocol, over a Unix socket and asyncio.

libzmq would bring threads into a process that forks kernels from itself, and a queue of its own
between the kernel and the log, in which a message of any size is held whole. Here the supervisor
stays single-threaded, reads no more than it has room for (so a flood waits in the kernel), and
skips a message that is too large as it passes by. Protocol: https://rfc.zeromq.org/spec/23/
(NULL mechanism, RFC 37 for its extension).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sandbox.errors import InfrastructureError

MAX_MESSAGE = 8 * 1024 * 1024
MAX_FRAMES = 250

_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_MORE, _LONG, _COMMAND = 1, 2, 4
_WRITE_HIGH_WATER = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message: its frames, or, when it was too large, those before the cut."""

    frames: list[bytes]
    size: int
    """The bytes of all frames, also of the skipped ones."""
    complete: bool


class ZmtpConnection(asyncio.Protocol):
    """One connected socket.

    Args:
        socket_type: ``DEALER`` or ``SUB``; a SUB subscribes to everything.
        identity: The name by which a ROUTER knows a DEALER; it gives one where that is empty.
    """

    def __init__(
        self, socket_type: str, on_message: Callable[[Incoming], None], identity: bytes = b""
    ) -> None:
        self._identity = identity
        self._socket_type = socket_type.encode("ascii")
        self._on_message = on_message
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._greeted = False
        self._ready = asyncio.get_running_loop().create_future()
        self._frames: list[bytes] = []
        self._size = 0
        self._cut = False
        self._skip = 0
        self._skip_flags = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()

    # --- for the owner

    async def ready(self) -> None:
        """Wait until the other side has accepted this one.

        Raises:
            InfrastructureError: The connection ended, or does not speak the protocol.
        """
        await asyncio.shield(self._ready)

    async def send(self, frames: list[bytes]) -> None:
        """Send one message, waiting while the kernel does not take what was sent before.

        A message to a connection that has ended goes nowhere.
        """
        self.send_now(frames)
        await self._writable.wait()

    def send_now(self, frames: list[bytes]) -> None:
        """Send one message without waiting."""
        if self._transport is None or self._lost.is_set():
            return
        last = len(frames) - 1
        self._transport.write(
            b"".join(_frame(frame, _MORE if i < last else 0) for i, frame in enumerate(frames))
        )

    def pause(self) -> None:
        """Stop reading; what comes waits in the kernel process."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._lost.is_set():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close at once; may be called twice."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_lost(self) -> None:
        """Wait until the connection has ended and all that came before was handed over."""
        await self._lost.wait()

    # --- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        transport.write(_GREETING)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._writable.set()
        if not self._ready.done():
            self._ready.set_exception(InfrastructureError("The kernel closed its socket."))
            self._ready.exception()  # retrieved: nobody may be waiting for it

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            if not self._greeted and not self._greeting():
                return
            self._take_frames()
        except (ValueError, IndexError, struct.error):  # not ZMTP: someone else has the socket
            self.close()

    # --- the protocol

    def _greeting(self) -> bool:
        if len(self._buffer) < len(_GREETING):
            return False
        theirs = bytes(self._buffer[: len(_GREETING)])
        if theirs[0] != 0xFF or theirs[9] != 0x7F or theirs[10] < 3 or theirs[12:17] != b"NULL\0":
            raise ValueError("not a ZMTP 3 greeting")
        del self._buffer[: len(_GREETING)]
        self._greeted = True
        body = b"\x05READY" + _property(b"Socket-Type", self._socket_type)
        if self._socket_type == b"DEALER":
            body += _property(b"Identity", self._identity)
        self._write_command(body)
        return True

    def _take_frames(self) -> None:
        buffer = self._buffer
        at, available = 0, len(buffer)
        try:
            while at < available:
                if self._skip:
                    step = min(self._skip, available - at)
                    self._skip -= step
                    at += step
                    if self._skip:
                        return
                    self._end_frame(self._skip_flags)
                    continue
                flags = buffer[at]
                body = at + (9 if flags & _LONG else 2)
                if body > available:
                    return
                size = int.from_bytes(buffer[at + 1 : body], "big")
                if flags & _COMMAND:
                    if size > MAX_MESSAGE:
                        raise ValueError("a command of that size is none")
                    if body + size > available:
                        return
                    self._command(bytes(buffer[body : body + size]))
                    at = body + size
                    continue
                if self._cut or self._size + size > MAX_MESSAGE or len(self._frames) >= MAX_FRAMES:
                    self._cut = True
                    self._size += size
                    self._skip, self._skip_flags = size, flags
                    at = body
                    if not size:
                        self._end_frame(flags)
                    continue
                if body + size > available:
                    return
                self._frames.append(bytes(memoryview(buffer)[body : body + size]))
                self._size += size
                at = body + size
                self._end_frame(flags)
        finally:
            del buffer[:at]

    def _end_frame(self, flags: int) -> None:
        if flags & _MORE:
            return
        message = Incoming(self._frames, self._size, not self._cut)
        self._frames, self._size, self._cut = [], 0, False
        self._on_message(message)

    def _command(self, body: bytes) -> None:
        name = body[1 : 1 + body[0]]
        if name == b"READY" and not self._ready.done():
            if self._socket_type == b"SUB":
                self.send_now([b"\x01"])
            self._ready.set_result(None)
        elif name == b"ERROR":
            raise ValueError("refused")
        elif name == b"PING":
            self._write_command(b"\x04PONG" + body[7:23])

    def _write_command(self, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(bytes((_COMMAND, len(body))) + body)


def _frame(data: bytes, flags: int) -> bytes:
    if len(data) > 255:
        return struct.pack("!BQ", flags | _LONG, len(data)) + data
    return bytes((flags, len(data))) + data


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + struct.pack("!I", len(value)) + value
