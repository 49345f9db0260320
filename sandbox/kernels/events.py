"""What a kernel said: a bounded log of its messages without secrets, for any number of readers.

Positions are the supervisor's numbers: the position of a message is its ``seq``, and reading from a
position answers what came after that message, whichever controller has read it.

What may be the beginning of a secret is held back until more of its stream comes, or something that
ends the text. It is then shown as a message of its own before that, under the same number.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from sandbox.kernels.messages import KernelMessage
from sandbox.link import wire
from sandbox.outputs.eventlog import Budget, EventLog, Read
from sandbox.outputs.redaction import Pieces, Redactor, TextPieces

KERNEL_BYTES = 8 * 1024 * 1024
"""What is kept of one kernel: the largest message that the supervisor sends, or some 6,000 lines
of output printed one by one."""
SESSION_BYTES = 16 * 1024 * 1024
"""What is kept of all kernels of a session together."""
MESSAGE_BYTES = 512
"""About what a message takes in memory beside its content."""
MAX_HELD = 64
"""The streams of which something is held back; only forged messages belong to so many cells."""
_ENDS_TEXT = frozenset(("display_data", "execute_result", "error"))


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """A message of a kernel, or something that happened to it, as readers get it.

    What is in it is checked for its form and its size only: it is the kernel's word.
    """

    seq: int
    epoch: int
    """Which start of the kernel said it."""
    channel: str
    """``iopub``, ``shell``, ``control`` or ``stdin``; ``event`` for what the supervisor says."""
    msg_type: str
    """Empty when the message could not be read; then it has no content either."""
    msg_id: str
    parent_id: str
    """The ``msg_id`` of the request that it belongs to: for a cell, the execution's id."""
    content_json: bytes
    """An object. Its values take far more memory than these bytes, so it is kept like this."""
    metadata_json: bytes = b"{}"
    buffers: tuple[bytes, ...] = ()

    @property
    def content(self) -> dict[str, Any]:
        """The content, decoded anew with each use."""
        return wire.decode_json(self.content_json)

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        held = len(self.content_json) + len(self.metadata_json) + sum(map(len, self.buffers))
        return MESSAGE_BYTES + held + 64 * len(self.buffers)


@dataclass(slots=True)
class _Held:
    """The text of a stream that ends with what may be the beginning of a secret."""

    name: str
    pieces: TextPieces
    message: LoggedMessage


class KernelEvents:
    """What one kernel said after its message ``start``; all its session's have one budget."""

    def __init__(self, redactor: Redactor, budget: Budget, start: int = 0) -> None:
        self._redactor = redactor
        self._held: dict[str, _Held] = {}
        self.log: EventLog[tuple[LoggedMessage, ...]] = EventLog(
            KERNEL_BYTES,
            lambda messages: sum(message.size_bytes for message in messages),
            start=start,
            budget=budget,
        )
        """For each message of the kernel what :meth:`redacted` made of it, until the kernel is
        stopped, or its session let go of."""

    def read(self, position: int = 0) -> Read[LoggedMessage]:
        """What came after the message ``position`` and is there; nothing is waited for."""
        return _flat(self.log.read(position))

    async def follow(self, position: int = 0) -> AsyncGenerator[Read[LoggedMessage]]:
        """What came after the message ``position``, and what comes until the kernel is stopped.

        A reader that is too slow is told how many messages it missed.
        """
        async for got in self.log.follow(position):
            yield _flat(got)

    def redacted(self, message: KernelMessage) -> tuple[LoggedMessage, ...]:
        """A message without secrets, after what was held back before it."""
        before = tuple(self._released(message)) if self._held else ()
        content, unfinished = message.content, None
        if self._redactor and message.channel == "iopub" and message.msg_type == "stream":
            content, unfinished = self._stream(message)
        text = self._redactor.text
        as_it_came = None if self._redactor else message.plain_json
        shown = LoggedMessage(
            message.seq,
            message.epoch,
            message.channel,
            text(message.msg_type),
            text(message.msg_id),
            text(message.parent_id),
            self._json(content) if as_it_came is None else as_it_came,
            self._json(message.metadata) if message.metadata else b"{}",
            # Buffers keep their length, for others may count on that.
            tuple(Pieces(self._redactor, keep_length=True).last(each) for each in message.buffers),
        )
        if unfinished is not None:
            if len(self._held) >= MAX_HELD:
                del self._held[next(iter(self._held))]  # never shown: it may begin a secret
            self._held[message.parent_id] = _Held(_name(message), unfinished, shown)
        return (*before, shown)

    def shown(self, text: str) -> str:
        """A text about the kernel without secrets."""
        return self._redactor.text(text)

    # --- inside

    def _json(self, value: Mapping[str, Any]) -> bytes:
        """An object without secrets; an empty one in the place of what JSON cannot express."""
        try:
            return wire.encode_json(self._redactor.data(value))
        except (ValueError, RecursionError):
            return b"{}"

    def _stream(self, message: KernelMessage) -> tuple[Mapping[str, Any], TextPieces | None]:
        """What can be shown of a text, and what holds its end back if that is not known yet."""
        text = message.content.get("text")
        if not isinstance(text, str):
            return message.content, None
        held = self._held.pop(message.parent_id, None)
        pieces = held.pieces if held is not None else TextPieces(self._redactor)
        content = {**message.content, "text": pieces.feed(text)}
        return content, None if pieces.is_settled else pieces

    def _released(self, message: KernelMessage) -> Iterator[LoggedMessage]:
        """What this message ends: the text of a stream that was held back."""
        if message.channel == "event":
            ended = tuple(self._held) if message.msg_type == "exited" else ()
        else:
            ended = (message.parent_id,) if self._ends_text(message) else ()
        for parent_id in ended:
            held = self._held.pop(parent_id)
            content = {"name": held.name, "text": held.pieces.last()}
            yield replace(
                held.message, seq=message.seq, msg_id="", content_json=self._json(content)
            )

    def _ends_text(self, message: KernelMessage) -> bool:
        held = self._held.get(message.parent_id)
        if held is None or message.channel != "iopub":
            return False
        if message.msg_type == "stream":
            return _name(message) != held.name
        is_idle = message.content.get("execution_state") == "idle"
        return message.msg_type in _ENDS_TEXT or (message.msg_type == "status" and is_idle)


def _flat(got: Read[tuple[LoggedMessage, ...]]) -> Read[LoggedMessage]:
    return Read(tuple(chain.from_iterable(got.entries)), got.position, got.missed)


def _name(message: KernelMessage) -> str:
    return "stderr" if message.content.get("name") == "stderr" else "stdout"
