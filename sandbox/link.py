"""A link: the streams of ``sandbox.wire`` driven by asyncio over one byte stream.

The controller's end opens streams (:meth:`Link.open`, :meth:`Link.call`); the supervisor's end
answers them (``on_open``). Both ends share this module, so it uses the standard library only and
is copied into the images. What comes from the other end is bounded here: the size of a message, the
messages under assembly on the whole link, and, by credit, what waits to be taken.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from sandbox import wire
from sandbox.errors import (
    Conflict,
    FileError,
    InfrastructureError,
    InvalidRequest,
    LinkLost,
    NotFound,
    NotPermitted,
    ProtocolError,
    QuotaExceeded,
    SandboxError,
)

MAX_MESSAGE = {wire.JSON: 1024 * 1024, wire.KERNEL: 16 * 1024 * 1024}
MAX_ASSEMBLY = 64 * 1024 * 1024
SEND_HIGH_WATER = 256 * 1024
GREETING_TIMEOUT_S = 15.0
PING_INTERVAL_S = 15.0
PING_TIMEOUT_S = 45.0

_PLAIN_TAGS = frozenset({wire.BYTES, wire.STDERR})
_REFUSALS: dict[str, type[SandboxError]] = {
    kind.code: kind for kind in (InvalidRequest, NotFound, NotPermitted, QuotaExceeded, Conflict)
}
FILE_REASONS = frozenset(
    "not_found exists is_directory not_a_directory not_a_file not_empty permission_denied "
    "read_only no_space too_large outside invalid_name io_error conflict".split()
)

logger = logging.getLogger(__name__)


class ByteStream(Protocol):
    """What a link runs over: an ordered, reliable stream of bytes, both ways."""

    async def read(self) -> bytes:
        """The next bytes, as many as there are; empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting while the other side does not take it."""
        ...

    async def close(self) -> None:
        """Close both directions; may be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream: its tag (``wire.JSON`` …) and bytes."""

    tag: int
    data: bytes

    def json(self) -> dict[str, Any]:
        """The message as a JSON object.

        Raises:
            ProtocolError: It is not tagged as JSON, or not a JSON object.
        """
        if self.tag != wire.JSON:
            raise ProtocolError(f"expected a JSON message, not one with tag {self.tag}")
        return wire.decode_json(self.data)


def printable(text: str, limit: int = 2000) -> str:
    """Text from the other end made safe to show: control characters escaped, length bounded."""
    kept = text[:limit]
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in kept)


def refusal(code: str, message: str) -> SandboxError:
    """The error that a RESET of the other end stands for."""
    text = printable(message) or f"The operation was refused ({printable(code, 40)})."
    if code.startswith("file.") and code[5:] in FILE_REASONS:
        return FileError(code[5:], text)
    return _REFUSALS.get(code, InfrastructureError)(text)


class Stream:
    """One stream of a link. Made by :meth:`Link.open` or handed to ``on_open``."""

    def __init__(self, link: Link, number: int, request: Mapping[str, Any]) -> None:
        self.request = request
        self._link = link
        self._number = number
        self._inbox: deque[tuple[Message, int]] = deque()
        self._assembly = bytearray()
        self._assembly_tag = -1
        self._owed = 0
        """Credit of pieces under assembly, held back until the messages before them are taken."""
        self._ended = False
        self._error: SandboxError | None = None
        self._changed = asyncio.Event()

    async def receive(self) -> Message | None:
        """The next message; None when the other end has ended the stream.

        Raises:
            SandboxError: The other end refused or reset the stream (the error it named).
            LinkLost: The link ended.
        """
        while True:
            if self._inbox:
                message, cost = self._inbox.popleft()
                if not self._inbox:
                    cost, self._owed = cost + self._owed, 0
                if cost:
                    self._link.consumed(self._number, cost)
                return message
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()

    async def receive_json(self) -> dict[str, Any]:
        """The next message, which must be a JSON object.

        Raises:
            ProtocolError: It is something else, or the stream ended.
        """
        message = await self.receive()
        if message is None:
            raise ProtocolError("a stream ended where an answer was due")
        return message.json()

    async def wait_reset(self) -> NoReturn:
        """Wait until the other end gives the stream up, also after it has ended its own half.

        Raises:
            SandboxError: Always, in the end: what it was given up with.
            LinkLost: The link ended.
        """
        while self._error is None:
            self._changed.clear()
            await self._changed.wait()
        raise self._error

    async def __aiter__(self) -> AsyncIterator[Message]:
        while (message := await self.receive()) is not None:
            yield message

    async def send(self, data: bytes, tag: int = wire.BYTES) -> None:
        """Send one message, waiting while too much is queued already.

        Raises:
            SandboxError: The other end reset the stream.
            LinkLost: The link ended.
        """
        while self._error is None and self._link.queued(self._number) > SEND_HIGH_WATER:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error
        self._link.send(self._number, data, tag)

    async def send_json(self, value: Mapping[str, Any]) -> None:
        """Send an object as a JSON message."""
        await self.send(wire.encode_json(value), wire.JSON)

    def end(self) -> None:
        """Say that nothing more comes from this end."""
        self._link.end(self._number)

    def reset(self, code: str = "cancelled", message: str = "") -> None:
        """Give the stream up in both directions; harmless when it is over."""
        self._link.reset(self._number, code, message)
        self._fail(InfrastructureError("The stream was given up."))

    # --- called by the link

    def _deliver(self, event: wire.Received) -> None:
        if event.tag in _PLAIN_TAGS and not event.more and self._assembly_tag < 0:
            self._inbox.append((Message(event.tag, event.data), event.cost))
            self._changed.set()
            return
        if event.tag in _PLAIN_TAGS:  # a long plain message: its pieces are as good as the whole
            self._inbox.append((Message(event.tag, event.data), event.cost))
            self._changed.set()
            return
        limit = MAX_MESSAGE.get(event.tag)
        if limit is None:
            raise ProtocolError(f"unknown tag {event.tag}")
        if self._assembly_tag not in (-1, event.tag):
            raise ProtocolError("a message changed its tag half-way")
        if not event.more and self._assembly_tag < 0:
            self._inbox.append((Message(event.tag, event.data), event.cost))
            self._changed.set()
            return
        if len(self._assembly) + len(event.data) > limit:
            raise ProtocolError(f"a message is longer than {limit} bytes")
        self._link.assembling(len(event.data))
        self._assembly += event.data
        self._assembly_tag = event.tag
        if self._inbox:
            self._owed += event.cost
        else:
            self._link.consumed(self._number, event.cost)
        if not event.more:
            self._link.assembling(-len(self._assembly))
            self._inbox.append((Message(event.tag, bytes(self._assembly)), 0))
            self._assembly = bytearray()
            self._assembly_tag = -1
            self._changed.set()

    def _finish(self) -> None:
        self._ended = True
        self._changed.set()

    def _fail(self, error: SandboxError) -> None:
        if self._error is None:
            self._error = error
        self._link.assembling(-len(self._assembly))
        self._assembly = bytearray()
        self._changed.set()

    def _wake(self) -> None:
        self._changed.set()


OnOpen = Callable[[Stream], Awaitable[None]]


class Link:
    """One end of a link; :meth:`run` must be running for anything to move.

    Args:
        io: The byte stream; closed when the link ends.
        initiator: True at the controller's end.
        hello: What to say of ourselves.
        on_open: Called in a task of its own for each stream the other end opens; a
            ``SandboxError`` it raises becomes the stream's reset. None refuses every such stream.
    """

    def __init__(
        self,
        io: ByteStream,
        *,
        initiator: bool,
        hello: Mapping[str, Any],
        on_open: OnOpen | None = None,
    ) -> None:
        self._io = io
        self._mux = wire.Mux(initiator=initiator, hello=hello)
        self._on_open = on_open
        self._streams: dict[int, Stream] = {}
        self._assembly_size = 0
        self._outgoing = asyncio.Event()
        self._outgoing.set()
        self._greeted: asyncio.Future[Mapping[str, Any]] | None = None
        self._closed = asyncio.Event()
        self._error: SandboxError | None = None
        self._last_heard = 0.0
        self._initiator = initiator

    # --- life

    async def run(self) -> None:
        """Move bytes until either end closes; returns, never raises, and leaves ``error`` set."""
        loop = asyncio.get_running_loop()
        self._last_heard = loop.time()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write())
                if self._initiator:
                    tasks.create_task(self._keep_alive())
                await self._read(tasks)
                raise _Over  # ends the group and every task of a stream
        except BaseExceptionGroup as group:
            _, unexpected = group.split((_Over, OSError, SandboxError))
            wrong = group.subgroup(SandboxError)
            if wrong is not None:
                self._error = next(e for e in _leaves(wrong) if isinstance(e, SandboxError))
            if unexpected is not None:
                raise unexpected from None
        finally:
            self._finish()
            await self._io.close()

    async def aclose(self) -> None:
        """Close the link; :meth:`run` returns soon after."""
        self._finish()
        await self._io.close()

    @property
    def error(self) -> SandboxError | None:
        """Why the link ended, when it was for a broken rule; None for a plain end."""
        return self._error

    @property
    def is_closed(self) -> bool:
        """Whether the link has ended."""
        return self._closed.is_set()

    async def wait_closed(self) -> None:
        """Wait until the link has ended."""
        await self._closed.wait()

    async def greeting(self, timeout_s: float = GREETING_TIMEOUT_S) -> Mapping[str, Any]:
        """Wait for the other end's HELLO and return what it says of itself.

        Raises:
            LinkLost: It did not come in time, or the link ended first.
        """
        if self._greeted is None:
            self._greeted = asyncio.get_running_loop().create_future()
            if self.is_closed:
                raise self._ending()
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._greeted)
        except TimeoutError as exc:
            raise LinkLost(f"The supervisor did not answer within {timeout_s:g} s.") from exc

    # --- streams

    def open(self, op: str, **fields: Any) -> Stream:
        """Open a stream with the request ``{"op": op, **fields}``.

        Raises:
            LinkLost: The link has ended.
            InvalidRequest: The request does not fit in a frame.
        """
        if self.is_closed:
            raise self._ending()
        request = {"op": op, **fields}
        try:
            number = self._mux.open(request)
        except ValueError as exc:
            raise InvalidRequest(f"The request is too long: {exc}.") from exc
        stream = self._streams[number] = Stream(self, number, request)
        self._outgoing.set()
        return stream

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Open a stream, take its one JSON answer and close it.

        Raises:
            SandboxError: What the other end refused with.
            LinkLost: The link ended.
        """
        stream = self.open(op, **fields)
        try:
            stream.end()
            return await stream.receive_json()
        finally:
            stream.reset()

    # --- for streams

    def send(self, number: int, data: bytes, tag: int) -> None:
        """Queue a message of a stream."""
        self._mux.send(number, data, tag)
        self._outgoing.set()

    def end(self, number: int) -> None:
        """Half-close a stream."""
        self._mux.end(number)
        self._outgoing.set()

    def reset(self, number: int, code: str, message: str) -> None:
        """Reset a stream and forget it."""
        self._streams.pop(number, None)
        if not self.is_closed:
            self._mux.reset(number, code, message)
            self._outgoing.set()

    def queued(self, number: int) -> int:
        """The bytes of a stream that wait to be sent."""
        return self._mux.queued(number)

    def consumed(self, number: int, cost: int) -> None:
        """Give a stream's credit back to the other end."""
        self._mux.consumed(number, cost)
        self._outgoing.set()

    def assembling(self, size: int) -> None:
        """Account for bytes of messages under assembly on the whole link."""
        self._assembly_size += size
        if self._assembly_size > MAX_ASSEMBLY:
            raise ProtocolError(f"messages under assembly take more than {MAX_ASSEMBLY} bytes")

    # --- tasks

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while data := await self._io.read():
            self._last_heard = loop.time()
            for event in self._mux.receive(data):
                self._dispatch(event, tasks)
            self._outgoing.set()

    def _dispatch(self, event: wire.Event, tasks: asyncio.TaskGroup) -> None:
        match event:
            case wire.Received(number):
                stream = self._streams.get(number)
                if stream is None:
                    self._mux.consumed(number, event.cost)
                else:
                    stream._deliver(event)  # pyright: ignore[reportPrivateUsage]  # one unit
            case wire.Credited(number):
                self._wake(number)
            case wire.Ended(number):
                if stream := self._streams.get(number):
                    stream._finish()  # pyright: ignore[reportPrivateUsage]  # one unit
                    if not self._mux.is_open(number):
                        del self._streams[number]
            case wire.WasReset(number, code, message):
                if stream := self._streams.pop(number, None):
                    stream._fail(refusal(code, message))  # pyright: ignore[reportPrivateUsage]
            case wire.Opened(number, request):
                stream = self._streams[number] = Stream(self, number, request)
                if self._on_open is None:
                    stream.reset("not_permitted", "This end opens no streams.")
                else:
                    tasks.create_task(self._serve(self._on_open, stream))
            case wire.Hello(info):
                if self._greeted is None:
                    self._greeted = asyncio.get_running_loop().create_future()
                if not self._greeted.done():
                    self._greeted.set_result(info)
            case wire.Ponged():
                pass  # any byte counts as a sign of life

    async def _serve(self, on_open: OnOpen, stream: Stream) -> None:
        try:
            await on_open(stream)
        except FileError as exc:
            stream.reset(f"file.{exc.reason}", exc.message)
        except SandboxError as exc:
            stream.reset(exc.code, exc.message)
        except asyncio.CancelledError:
            stream.reset("cancelled")
            raise
        except Exception as exc:  # the outermost edge of a stream: one bad request ends only itself
            logger.exception("stream %s failed", stream.request.get("op"))
            stream.reset("failed", f"{type(exc).__name__}: {exc}")

    async def _write(self) -> None:
        while True:
            data = self._mux.pull()
            if data:
                await self._io.write(data)
                for stream in tuple(self._streams.values()):
                    stream._wake()  # pyright: ignore[reportPrivateUsage]  # one unit
            else:
                self._outgoing.clear()
                await self._outgoing.wait()

    async def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            if loop.time() - self._last_heard > PING_TIMEOUT_S:
                raise LinkLost(f"The supervisor was silent for {PING_TIMEOUT_S:g} s.")
            self._mux.ping(os.urandom(8))
            self._outgoing.set()

    def _wake(self, number: int) -> None:
        self._outgoing.set()
        if stream := self._streams.get(number):
            stream._wake()  # pyright: ignore[reportPrivateUsage]  # one unit

    def _ending(self) -> SandboxError:
        return self._error or LinkLost("The link to the sandbox ended.")

    def _finish(self) -> None:
        self._closed.set()
        self._outgoing.set()
        error = self._ending()
        for stream in tuple(self._streams.values()):
            stream._fail(error)  # pyright: ignore[reportPrivateUsage]  # one unit
        self._streams.clear()
        if self._greeted is None:
            return
        if not self._greeted.done():
            self._greeted.set_exception(error)
            self._greeted.exception()  # retrieved: nobody may be waiting for it


class _Over(Exception):
    """The other end closed the byte stream."""


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for exc in group.exceptions:
        found.extend(_leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc])
    return found
