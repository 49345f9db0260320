"""The streams of a link over one byte stream, without any I/O.

Both ends of a link share this module. It turns received bytes into events and calls into bytes to
send; ``sandbox.link.link`` moves the bytes. The rules of credit and turns are in ``docs/link.md``.

The other end is hostile: no sequence of bytes may raise anything but :class:`ProtocolError`, take
more than the stated memory, or let one stream starve another.

Standard library, ``sandbox.errors`` and ``sandbox.link.wire`` only: this file is also copied into
the images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.errors import ProtocolError
from sandbox.link.wire import (
    BYTES,
    CREDIT,
    CREDIT_BATCH,
    CREDIT_COUNT,
    DATA,
    END,
    FRAME_COST,
    HEADER,
    HELLO,
    INITIAL_CREDIT,
    MAX_PENDING_ANSWERS,
    MAX_STREAMS,
    MORE,
    OPEN,
    PIECE_SIZE,
    PING,
    PONG,
    PROTOCOL_VERSION,
    PULL_SIZE,
    RESET,
    Credited,
    Ended,
    Event,
    Hello,
    Opened,
    Ponged,
    Received,
    WasReset,
    decode_json,
    encode,
    encode_json,
)


@dataclass(slots=True)
class _Stream:
    send_credit: int = INITIAL_CREDIT
    """Bytes the other end still lets us send."""
    receive_credit: int = INITIAL_CREDIT
    """Bytes we still let the other end send."""
    unreported: int = 0
    """Bytes consumed here, of which the other end has not been told."""
    queue: deque[tuple[int, memoryview]] = field(default_factory=deque[tuple[int, memoryview]])
    """Messages waiting for their turn, with their tags; of the first one, what is left of it."""
    queued: int = 0
    """The bytes in ``queue``."""
    ready: bool = False
    """Whether the stream stands in the line of those that can send."""
    end_queued: bool = False
    end_sent: bool = False
    end_received: bool = False

    def can_send(self) -> bool:
        """Whether there is something to send and the credit for it."""
        if self.queue:
            return min(len(self.queue[0][1]), PIECE_SIZE) + FRAME_COST <= self.send_credit
        return self.end_queued and not self.end_sent


class Mux:
    """One end of a link: frames in, events out; calls in, frames out.

    Args:
        initiator: True at the controller's end, which opens odd streams.
    """

    def __init__(self, *, initiator: bool, hello: Mapping[str, Any]) -> None:
        self._parity = 1 if initiator else 0
        self._next_local = 1 if initiator else 2
        self._last_remote = 0
        self._streams: dict[int, _Stream] = {}
        self._over: list[int] = []
        self._ready: deque[int] = deque()
        self._control: deque[bytes] = deque()
        self._answers: deque[bytes] = deque()
        self._answers_size = 0
        self._buffer = b""
        self._greeted = False
        self._control.append(encode(HELLO, 0, encode_json({"protocol": PROTOCOL_VERSION, **hello})))

    # --- what comes in

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes from the other end and yield what they mean, one event at a time.

        Events that are not taken now come with the next call.

        Raises:
            ProtocolError: While iterating: the other end broke the protocol; nothing more may be
                asked of this object.
        """
        self._buffer = self._buffer + data if self._buffer else data
        return self._events()

    def _events(self) -> Iterator[Event]:
        # One copy of each payload: what is complete is cut out of what came, the rest is kept.
        buffer = self._buffer
        start, available = 0, len(buffer)
        try:
            while available - start >= HEADER.size:
                kind, tag, stream, length = HEADER.unpack_from(buffer, start)
                end = start + HEADER.size + length
                # Before the payload is there: what is no link at all must not be waited for.
                if kind > PONG:
                    raise ProtocolError(f"unknown frame type {kind}")
                if not self._greeted and kind != HELLO:
                    raise ProtocolError("the first frame is not HELLO")
                if end > available:
                    break
                payload = buffer[start + HEADER.size : end]
                start = end
                event = self._frame(kind, tag, stream, payload)
                if event is not None:
                    yield event
        finally:
            self._buffer = buffer[start:]

    def _frame(self, kind: int, tag: int, number: int, payload: bytes) -> Event | None:
        if kind != DATA and tag:
            raise ProtocolError(f"frame type {kind} carries no tag")
        if kind in (HELLO, PING, PONG):
            return self._link_frame(kind, number, payload)
        if kind == OPEN:
            return self._opened(number, payload)
        stream = self._streams.get(number)
        if stream is None:
            self._check_was_open(number)
            return None
        if kind == DATA:
            return self._data(number, stream, tag, payload)
        if kind == CREDIT:
            return self._credited(number, stream, payload)
        if kind == END:
            return self._ended(number, stream, payload)
        reason = decode_json(payload)
        self._forget(number)
        return WasReset(number, str(reason.get("code", "")), str(reason.get("message", "")))

    def _link_frame(self, kind: int, number: int, payload: bytes) -> Event | None:
        if number:
            raise ProtocolError(f"frame type {kind} belongs to no stream")
        if kind == HELLO:
            if self._greeted:
                raise ProtocolError("a second HELLO")
            info = decode_json(payload)
            if info.get("protocol") != PROTOCOL_VERSION:
                raise ProtocolError(f"the other end speaks protocol {info.get('protocol')!r:.40}")
            self._greeted = True
            return Hello(info)
        if len(payload) > 64:
            raise ProtocolError("a ping carries at most 64 bytes")
        if kind == PING:
            self._answer(encode(PONG, 0, payload))
            return None
        return Ponged(payload)

    def _opened(self, number: int, payload: bytes) -> Event | None:
        if number % 2 == self._parity or number <= self._last_remote:
            raise ProtocolError(f"stream {number} is not the other end's next one")
        self._last_remote = number
        request = decode_json(payload)
        theirs = sum(1 for known in self._streams if known % 2 != self._parity)
        if theirs >= MAX_STREAMS:
            reason = {"code": "quota_exceeded", "message": f"{theirs} streams are open already."}
            self._answer(encode(RESET, number, encode_json(reason)))
            return None
        self._streams[number] = _Stream()
        return Opened(number, request)

    def _data(self, number: int, stream: _Stream, tag: int, payload: bytes) -> Event:
        if stream.end_received:
            raise ProtocolError("data after the end of a stream")
        event = Received(number, tag & ~MORE, bool(tag & MORE), payload)
        stream.receive_credit -= event.cost
        if stream.receive_credit < 0:
            raise ProtocolError("the other end overdrew its credit")
        return event

    def _credited(self, number: int, stream: _Stream, payload: bytes) -> Event:
        if len(payload) != CREDIT_COUNT.size:
            raise ProtocolError("a CREDIT frame carries four bytes")
        stream.send_credit += CREDIT_COUNT.unpack(payload)[0]
        if stream.send_credit > INITIAL_CREDIT:
            raise ProtocolError("the other end gave back more credit than was used")
        self._make_ready(number, stream)
        return Credited(number)

    def _ended(self, number: int, stream: _Stream, payload: bytes) -> Event:
        if payload or stream.end_received:
            raise ProtocolError("a stream was ended twice, or with a payload")
        stream.end_received = True
        if stream.end_sent:
            self._forget(number)
        return Ended(number)

    def _check_was_open(self, number: int) -> None:
        ours = number % 2 == self._parity
        if not number or (number >= self._next_local if ours else number > self._last_remote):
            raise ProtocolError(f"stream {number} was never opened")

    # --- what goes out

    def open(self, request: Mapping[str, Any]) -> int:
        """Open a stream with a request and return its number.

        Raises:
            ValueError: The request is longer than a frame, or cannot be written as JSON.
            OverflowError: ``MAX_STREAMS`` of ours are open.
        """
        ours = sum(1 for known in self._streams if known % 2 == self._parity)
        if ours >= MAX_STREAMS:
            raise OverflowError(f"{ours} streams are open already")
        number = self._next_local
        self._control.append(encode(OPEN, number, encode_json(request)))
        self._next_local += 2
        self._streams[number] = _Stream()
        return number

    def send(self, number: int, data: bytes, tag: int = BYTES) -> None:
        """Queue one message; it is cut into frames, which wait for credit and for their turn.

        The queue is not bounded here: wait until :meth:`queued` is small before queueing more.
        A message for a stream that is over is dropped.
        """
        stream = self._streams.get(number)
        if stream is None or stream.end_queued:
            return
        stream.queue.append((tag, memoryview(data)))
        stream.queued += len(data)
        self._make_ready(number, stream)

    def end(self, number: int) -> None:
        """Half-close: say that nothing more comes, after what is queued."""
        stream = self._streams.get(number)
        if stream is not None:
            stream.end_queued = True
            self._make_ready(number, stream)

    def reset(self, number: int, code: str = "cancelled", message: str = "") -> None:
        """Give a stream up: drop what is queued and tell the other end why.

        Raises:
            ProtocolError: The other end opens streams faster than it takes these answers.
        """
        if number not in self._streams:
            return
        self._forget(number)
        text = message[:1000].encode("utf-8", "backslashreplace").decode()
        frame = encode(RESET, number, encode_json({"code": code, "message": text}))
        if number % 2 == self._parity:
            self._control.append(frame)  # as many as we opened, so bounded by us
        else:
            self._answer(frame)

    def consumed(self, number: int, cost: int) -> None:
        """Say that ``cost`` bytes of received data were taken, so that more may come."""
        stream = self._streams.get(number)
        if stream is None or stream.end_received:
            return
        stream.unreported += cost
        if stream.unreported >= CREDIT_BATCH:
            stream.receive_credit += stream.unreported
            self._control.append(encode(CREDIT, number, CREDIT_COUNT.pack(stream.unreported)))
            stream.unreported = 0

    def ping(self, token: bytes) -> None:
        """Ask the other end for a sign of life; the answer is a :class:`Ponged`."""
        self._control.append(encode(PING, 0, token))

    def queued(self, number: int) -> int:
        """The bytes that wait to be sent on a stream; 0 when it is over."""
        stream = self._streams.get(number)
        return stream.queued if stream else 0

    def is_open(self, number: int) -> bool:
        """Whether the stream is open in at least one direction."""
        return number in self._streams

    def take_over(self) -> list[int]:
        """The streams that came to their end, however, since this was last asked."""
        over, self._over = self._over, []
        return over

    @property
    def has_output(self) -> bool:
        """Whether :meth:`pull` would return something."""
        return bool(self._control or self._answers or self._ready)

    def pull(self, size: int = PULL_SIZE) -> bytes:
        """The next bytes to send, about ``size`` at most; empty when there is nothing to send.

        Control frames go first; then each stream that has data and credit sends one frame in turn.
        """
        parts: list[bytes | memoryview] = []
        room = size
        for line in (self._control, self._answers):
            while line and room > 0:
                frame = line.popleft()
                parts.append(frame)
                room -= len(frame)
                if line is self._answers:
                    self._answers_size -= len(frame)
        while self._ready and room > 0:
            number = self._ready.popleft()
            stream = self._streams.get(number)
            if stream is not None:
                stream.ready = False
                room -= self._send_one(number, stream, parts)
        return b"".join(parts)

    def _send_one(self, number: int, stream: _Stream, parts: list[bytes | memoryview]) -> int:
        """Append a stream's next frame to ``parts``; return its length."""
        if not stream.queue:
            stream.end_sent = True
            parts.append(HEADER.pack(END, 0, number, 0))
            if stream.end_received:
                self._forget(number)
            return HEADER.size
        tag, rest = stream.queue.popleft()
        piece, rest = rest[:PIECE_SIZE], rest[PIECE_SIZE:]
        if rest:
            stream.queue.appendleft((tag, rest))
            tag |= MORE
        stream.queued -= len(piece)
        stream.send_credit -= len(piece) + FRAME_COST
        parts += (HEADER.pack(DATA, tag, number, len(piece)), piece)
        self._make_ready(number, stream)
        return HEADER.size + len(piece)

    def _make_ready(self, number: int, stream: _Stream) -> None:
        if not stream.ready and stream.can_send():
            stream.ready = True
            self._ready.append(number)

    def _answer(self, frame: bytes) -> None:
        """Queue what the other end makes us say, which must not be without end."""
        self._answers_size += len(frame)
        if self._answers_size > MAX_PENDING_ANSWERS:
            raise ProtocolError("the other end makes us answer faster than it reads")
        self._answers.append(frame)

    def _forget(self, number: int) -> None:
        del self._streams[number]
        self._over.append(number)
