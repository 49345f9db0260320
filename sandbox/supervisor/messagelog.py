"""What a kernel said: the numbered log of its messages, bounded, and their cutting to size."""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sandbox.errors import ProtocolError
from sandbox.link import wire
from sandbox.supervisor.zmtp import MAX_MESSAGE, Incoming

LIMIT_BYTES = 32 * 1024 * 1024
PIECE_BYTES = 128 * 1024
OVERSHOOT_BYTES = 2 * MAX_MESSAGE
"""What may still come from a kernel after it was told to wait, or when it cannot wait."""
ENTRY_OVERHEAD = 256
MOMENT_S = 0.002
"""A short cell has ended by then, so that its beginning goes with its end."""
DELIMITER = b"<IDS|MSG>"
DROPPED = "dropped"

_INPUT, _STATUS, _BUSY = b'"execute_input"', b'"status"', b'"busy"'
_STREAM = re.compile(rb'"msg_type"\s*:\s*"stream"')


class MessageLog:
    """The messages of one kernel, numbered over all its epochs, until they are acknowledged.

    Args:
        on_room: Called when a log that was full has room again.
    """

    def __init__(self, on_room: Callable[[], None], limit_bytes: int = LIMIT_BYTES) -> None:
        self._on_room = on_room
        self._limit = limit_bytes
        self._entries: dict[int, bytes] = {}
        self._streams: deque[int] = deque()
        self._size = 0
        self._readers = 0
        self._waiting: set[asyncio.Event] = set()
        self._waking: asyncio.TimerHandle | None = None
        self._was_full = False
        self._finished = False
        self._gap: dict[str, Any] = {}
        self.last_seq = 0

    @property
    def first_seq(self) -> int:
        """The oldest message kept; one past the last when there is none."""
        return next(iter(self._entries), self.last_seq + 1)

    @property
    def is_full(self) -> bool:
        """Whether its owner should stop reading: no room, and somebody there to make some."""
        full = self._size > self._limit and self._readers > 0
        self._was_full = self._was_full or full
        return full

    def append(
        self,
        epoch: int,
        channel: str,
        parts: list[bytes],
        *,
        stream: bool = False,
        can_wait: bool = False,
    ) -> None:
        """Number a message and keep it.

        Args:
            channel: A name that is JSON as it stands.
            parts: As in docs/link.md, without part 0.
            stream: Whether it is a stream output, which is dropped before anything else.
            can_wait: Whether readers may wait a moment for what comes with it.
        """
        self.last_seq += 1
        head = f'{{"seq":{self.last_seq},"epoch":{epoch},"channel":"{channel}"}}'
        self._put(self.last_seq, wire.pack_parts([head.encode(), *parts]))
        if stream:
            self._streams.append(self.last_seq)
        limit = self._limit if not self._readers else self._limit + OVERSHOOT_BYTES
        if self._size > limit:
            self._drop(epoch, limit)
        if not can_wait:
            self._wake()
        elif self._waking is None and self._waiting:
            self._waking = asyncio.get_running_loop().call_later(MOMENT_S, self._wake)

    def event(self, epoch: int, content: Mapping[str, Any]) -> None:
        """Keep something that happened to the kernel."""
        self.append(epoch, "event", [wire.encode_json(content)])

    def acknowledge(self, seq: int) -> None:
        """Forget everything up to ``seq``."""
        while self._entries and (first := next(iter(self._entries))) <= seq:
            self._remove(first)
        self._check_room()

    async def read(self, after: int) -> tuple[int, bytes] | None:
        """The next message after ``after`` and its number; waits for one.

        None when the log is finished and there is none.
        """
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while True:
                for seq in range(max(after + 1, self.first_seq), self.last_seq + 1):
                    if (data := self._entries.get(seq)) is not None:
                        return seq, data
                if self._finished:
                    return None
                event.clear()
                await event.wait()
        finally:
            self._waiting.discard(event)

    def open(self) -> None:
        """Somebody reads from now on: a full log makes the kernel wait instead of dropping."""
        self._readers += 1

    def close(self) -> None:
        """A reader went."""
        self._readers -= 1
        self._check_room()

    def finish(self) -> None:
        """Say that nothing more comes."""
        self._finished = True
        self._wake()

    def _wake(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        for event in self._waiting:
            event.set()

    def _check_room(self) -> None:
        if self._was_full and (self._size < self._limit * 3 // 4 or not self._readers):
            self._was_full = False
            self._on_room()

    def _put(self, seq: int, data: bytes) -> None:
        self._entries[seq] = data
        self._size += len(data) + ENTRY_OVERHEAD

    def _remove(self, seq: int) -> bytes:
        data = self._entries.pop(seq)
        self._size -= len(data) + ENTRY_OVERHEAD
        return data

    def _drop(self, epoch: int, limit: int) -> None:
        """Make room: drop the oldest stream outputs, then the oldest of anything.

        A run of dropped messages leaves one event in the place of its last.
        """
        while self._size > limit:
            while self._streams and self._streams[0] not in self._entries:
                self._streams.popleft()
            gap_at = self._gap.get("to_seq", 0)
            if self._streams:
                seq = self._streams.popleft()
            else:
                seq = next(iter(self._entries))
                if seq == gap_at:
                    seq += 1  # the event of the last gap is first; it grows
                    while seq not in self._entries and seq < self.last_seq:
                        seq += 1
                if seq not in self._entries:
                    return
            size = len(self._entries[seq])
            if gap_at == seq - 1 and gap_at in self._entries:
                self._remove(gap_at)
            else:
                self._gap = {"event": DROPPED, "messages": 0, "bytes": 0, "from_seq": seq}
            self._gap["messages"] += 1
            self._gap["bytes"] += size
            self._gap["to_seq"] = seq
            head = wire.encode_json({"seq": seq, "epoch": epoch, "channel": "event"})
            data = wire.pack_parts([head, wire.encode_json(self._gap)])
            self._size += len(data) - size
            self._entries[seq] = data


def jupyter_parts(frames: list[bytes]) -> list[bytes] | None:
    """What follows the delimiter of a Jupyter message; None when it is none."""
    try:
        parts = frames[frames.index(DELIMITER) + 1 :]
    except ValueError:
        return None
    return parts if len(parts) >= 5 else None


def is_stream(parts: list[bytes]) -> bool:
    """Whether a Jupyter message is a stream output."""
    return _STREAM.search(parts[1]) is not None


def begins_cell(parts: list[bytes]) -> bool:
    """Whether a message says no more than that a cell begins."""
    return _INPUT in parts[1] or (_BUSY in parts[4] and _STATUS in parts[1])


def pieces(parts: list[bytes], limit_bytes: int = PIECE_BYTES) -> Iterator[list[bytes]]:
    """A stream output cut into ones of at most about ``limit_bytes``, between characters."""
    if len(parts[4]) <= limit_bytes:
        yield parts
        return
    try:
        content = json.loads(parts[4])
        text = content["text"]
    except (ValueError, KeyError, TypeError, RecursionError):
        yield parts
        return
    step = limit_bytes // 4  # a character takes at most four bytes
    if not isinstance(text, str) or len(text) <= step:
        yield parts
        return
    if text.isascii():
        step = limit_bytes - 1024
    for start in range(0, len(text), step):
        piece = {**content, "text": text[start : start + step]}
        raw = json.dumps(piece, ensure_ascii=False).encode("utf-8", "surrogatepass")
        yield [*parts[:4], raw, *parts[5:]]


def oversize(message: Incoming) -> dict[str, Any]:
    """The event that stands for a message that was too large to keep."""
    parts = message.frames
    if DELIMITER in parts:
        parts = parts[parts.index(DELIMITER) + 1 :]
    header = _header(parts, 1)
    return {
        "event": "oversize",
        "msg_type": str(header.get("msg_type", ""))[:100],
        "bytes": message.size,
        "parent_id": str(_header(parts, 2).get("msg_id", ""))[:100],
    }


def _header(parts: list[bytes], index: int) -> dict[str, Any]:
    try:
        return wire.decode_json(parts[index])
    except (ProtocolError, IndexError):
        return {}
