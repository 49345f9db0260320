"""One stream of a link: messages in both directions, bounded by credit.

What comes from the other end is bounded here: the size of a message and, by credit, what waits to
be taken. What is done with a message, until the next one is asked for, counts for the session's
share of the event loop, and whoever asks waits while that is used up. Both ends share this module,
so it uses the standard library only and is copied into the images.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from sandbox.errors import (
    Conflict,
    FileError,
    InfrastructureError,
    InvalidRequest,
    NotFound,
    NotPermitted,
    ProtocolError,
    QuotaExceeded,
    SandboxError,
)
from sandbox.link import wire
from sandbox.link.turn import Mark, Turn

MAX_MESSAGE = {wire.JSON: 1024 * 1024, wire.KERNEL: 16 * 1024 * 1024}
SEND_HIGH_WATER = 256 * 1024
YIELD_EVERY = 64
"""Messages after which a receiver yields though one is there. Without it a flood of small messages
can keep step with the loop so that an anyio scope around the receiver never gets to cancel it."""

_PLAIN_TAGS = frozenset({wire.BYTES, wire.STDERR})
_REFUSALS: dict[str, type[SandboxError]] = {
    kind.code: kind for kind in (InvalidRequest, NotFound, NotPermitted, QuotaExceeded, Conflict)
}
FILE_REASONS = frozenset(
    (
        *("not_found", "exists", "is_directory", "not_a_directory", "not_a_file", "not_empty"),
        *("permission_denied", "read_only", "no_space", "too_large", "outside", "invalid_name"),
        *("io_error", "conflict"),
    )
)


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


class StreamLink(Protocol):
    """What a stream needs of its link."""

    @property
    def turn(self) -> Turn:
        """Counts what is done with what comes over the link."""
        ...

    def send(self, number: int, data: bytes, tag: int) -> None:
        """Queue a message of a stream."""
        ...

    def end(self, number: int) -> None:
        """Half-close a stream."""
        ...

    def reset(self, number: int, code: str, message: str) -> None:
        """Reset a stream and forget it."""
        ...

    def queued(self, number: int) -> int:
        """The bytes of a stream that wait to be sent."""
        ...

    def wake_when_sent(self, stream: Stream) -> None:
        """Wake a stream once when something was sent."""
        ...

    def consumed(self, number: int, cost: int) -> None:
        """Give a stream's credit back to the other end."""
        ...

    def hold(self, size: int) -> None:
        """Count bytes of long messages on the whole link."""
        ...


class Stream:
    """One stream of a link. Made by :meth:`Link.open` or handed to ``on_open``.

    One task may receive and others may send at the same time.
    """

    def __init__(self, link: StreamLink, number: int, request: Mapping[str, Any]) -> None:
        self.request = request
        self._link = link
        self._number = number
        self._inbox: deque[tuple[Message, int, int]] = deque()
        """Messages to be taken; with each, the credit and the held bytes it gives back."""
        self._pieces: list[bytes] = []
        self._assembly_tag = -1
        self._assembled = 0
        self._held = 0
        """Bytes of this stream that count towards ``MAX_HELD``."""
        self._owed = 0
        """Credit of pieces under assembly, held back until the messages before them are taken."""
        self._taken: Mark | None = None
        """When the last message was taken."""
        self._ended = False
        self._error: SandboxError | None = None
        self._changed = asyncio.Event()
        self._in_a_row = 0

    async def receive(self) -> Message | None:
        """The next message; None when the other end has ended the stream.

        Raises:
            SandboxError: The other end refused or reset the stream (the error it named).
            LinkLost: The link ended.
        """
        turn = self._link.turn
        if self._taken is not None:
            turn.charge_since(self._taken)
            self._taken = None
        await turn.rest()
        self._in_a_row += 1
        if self._in_a_row > YIELD_EVERY:
            self._in_a_row = 0
            await asyncio.sleep(0)
        while not self._inbox:
            if self._ended:
                return None
            if self._error is not None:
                raise self._error
            await self._change()
        message, cost, held = self._inbox.popleft()
        if not self._inbox:
            cost, self._owed = cost + self._owed, 0
        if held and self._held:
            self._hold(-held)
        self._link.consumed(self._number, cost)
        self._taken = turn.mark()
        return message

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
            await self._change()
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
            self._link.wake_when_sent(self)
            await self._change()
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
        self.fail(InfrastructureError("The stream was given up."))

    # --- called by the link

    def deliver(self, event: wire.Received) -> None:
        """Take a piece of data."""
        tag, data = event.tag, event.data
        if self._assembly_tag not in (-1, tag):
            raise ProtocolError("a message changed its tag half-way")
        if tag in _PLAIN_TAGS:  # of a long plain message the pieces are as good as the whole
            self._put(Message(tag, data), event.cost)
            return
        limit = MAX_MESSAGE.get(tag)
        if limit is None:
            raise ProtocolError(f"unknown tag {tag}")
        if not event.more and self._assembly_tag < 0:
            self._put(Message(tag, data), event.cost)
            return
        self._assembled += len(data)
        if self._assembled > limit:
            raise ProtocolError(f"a message is longer than {limit} bytes")
        self._hold(len(data))
        self._pieces.append(data)
        self._assembly_tag = tag
        if self._inbox:
            self._owed += event.cost
        else:
            self._link.consumed(self._number, event.cost)
        if not event.more:
            self._put(Message(tag, b"".join(self._pieces)), 0, self._assembled)
            self._pieces, self._assembly_tag, self._assembled = [], -1, 0

    def finish(self) -> None:
        """Take the other end's end."""
        if self._assembly_tag >= 0:
            raise ProtocolError("a stream ended in the middle of a message")
        self._ended = True
        self._changed.set()

    def fail(self, error: SandboxError) -> None:
        """Take a reset, or the end of the link; only the first counts."""
        if self._error is None:
            self._error = error
        self.let_go()
        self._changed.set()

    def let_go(self) -> None:
        """Count nothing of this stream any longer: no more can come."""
        self._pieces = []
        self._hold(-self._held)

    def wake(self) -> None:
        """Wake a sender that waits for room."""
        self._changed.set()

    def _put(self, message: Message, cost: int, held: int = 0) -> None:
        self._inbox.append((message, cost, held))
        self._changed.set()

    def _hold(self, size: int) -> None:
        self._held += size
        self._link.hold(size)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
