"""Frames and streams over one byte stream, without any I/O.

Both ends of a link share this module: the controller and the supervisor inside the container. It
turns received bytes into events and calls into bytes to send; ``sandbox.link`` moves the bytes. The
format, the limits and the rules of credit are described in ``docs/link.md``.

The other end is hostile: no sequence of bytes may raise anything but :class:`ProtocolError`, take
more than the stated memory, or let one stream starve another.

Standard library and ``sandbox.errors`` only: this file is also copied into the images.
"""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.errors import ProtocolError

PROTOCOL_VERSION = 1
HEADER = struct.Struct("!BBIH")
MAX_PAYLOAD = 0xFFFF
INITIAL_CREDIT = 256 * 1024
MAX_STREAMS = 256
MAX_PENDING_CONTROL = 1024 * 1024
MAX_JSON_DEPTH = 64
CREDIT_BATCH = INITIAL_CREDIT // 4

HELLO, OPEN, DATA, CREDIT, END, RESET, PING, PONG = range(8)

JSON, BYTES, STDERR, KERNEL = range(4)
MORE = 0x80

_EMPTY_FRAMES = frozenset({END})
_CREDIT = struct.Struct("!I")
_PART = struct.Struct("!I")
MAX_PARTS = 255


@dataclass(frozen=True, slots=True)
class Hello:
    """The other end's first frame."""

    info: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Opened:
    """The other end opened a stream with this request."""

    stream: int
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Received:
    """A piece of data came; ``more`` says that its message goes on.

    Whoever takes it must call :meth:`Mux.consumed` with ``cost`` to let the other end send on.
    """

    stream: int
    tag: int
    more: bool
    data: bytes

    @property
    def cost(self) -> int:
        """The bytes of credit this piece has used."""
        return len(self.data) + HEADER.size


@dataclass(frozen=True, slots=True)
class Credited:
    """The other end can take more on this stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The other end will send no more data on this stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class WasReset:
    """The other end gave the stream up, or refused it."""

    stream: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Ponged:
    """The answer to a ping."""

    token: bytes


Event = Hello | Opened | Received | Credited | Ended | WasReset | Ponged


@dataclass(slots=True)
class _Stream:
    send_credit: int = INITIAL_CREDIT
    """Bytes the other end still lets us send."""
    receive_credit: int = INITIAL_CREDIT
    """Bytes we still let the other end send."""
    unreported: int = 0
    """Bytes consumed here, of which the other end has not been told."""
    queue: deque[bytes] = field(default_factory=deque[bytes])
    """Encoded DATA frames (and at last an END) waiting for their turn."""
    queued: int = 0
    """The bytes in ``queue``."""
    ready: bool = False
    """Whether the stream stands in the line of those that can send."""
    end_queued: bool = False
    end_sent: bool = False
    end_received: bool = False


def encode(kind: int, stream: int = 0, payload: bytes = b"", tag: int = 0) -> bytes:
    """Encode one frame.

    Args:
        kind: One of ``HELLO`` … ``PONG``.
        stream: The stream's number; 0 for frames about the link itself.
        payload: At most ``MAX_PAYLOAD`` bytes.
        tag: For ``DATA``, the kind of data, with ``MORE`` set when the message goes on.

    Raises:
        ValueError: The payload is too long.
    """
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame carries at most {MAX_PAYLOAD} bytes, not {len(payload)}")
    return HEADER.pack(kind, tag, stream, len(payload)) + payload


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Encode an object as compact JSON in UTF-8."""
    return json.dumps(value, separators=(",", ":")).encode("utf-8", "surrogatepass")


def decode_json(data: bytes) -> dict[str, Any]:
    """Decode a JSON object from the other end.

    Raises:
        ProtocolError: It is not a JSON object, or is nested deeper than ``MAX_JSON_DEPTH``.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError("a frame's JSON does not parse") from exc
    if not isinstance(value, dict):
        raise ProtocolError("a frame's JSON is not an object")
    if data.count(b"{") + data.count(b"[") > MAX_JSON_DEPTH and _deeper(value, MAX_JSON_DEPTH):
        raise ProtocolError(f"a frame's JSON is nested deeper than {MAX_JSON_DEPTH}")
    return value


def _deeper(value: Any, levels: int) -> bool:
    """Whether a value is nested deeper than ``levels``; walks level by level, not by recursion."""
    layer: list[Any] = [value]
    for _ in range(levels):
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return False
        layer = inner
    return True


def pack_parts(parts: Sequence[bytes]) -> bytes:
    """Join the parts of a KERNEL message: how many, then each with its length before it.

    Raises:
        ValueError: There are more than ``MAX_PARTS``.
    """
    if len(parts) > MAX_PARTS:
        raise ValueError(f"a kernel message has at most {MAX_PARTS} parts, not {len(parts)}")
    pieces = [bytes((len(parts),))]
    for part in parts:
        pieces += (_PART.pack(len(part)), part)
    return b"".join(pieces)


def unpack_parts(data: bytes) -> list[bytes]:
    """Take the parts of a KERNEL message apart again.

    Raises:
        ProtocolError: The lengths do not add up to exactly the data.
    """
    parts: list[bytes] = []
    at, size = 1, len(data)
    for _ in range(data[0] if data else 0):
        start = at + _PART.size
        if start > size:
            break
        at = start + _PART.unpack_from(data, at)[0]
        parts.append(data[start:at])
    if not data or len(parts) != data[0] or at != size:
        raise ProtocolError("the parts of a kernel message do not fill it exactly")
    return parts


class Mux:
    """One end of a link: frames in, events out; calls in, frames out.

    Args:
        initiator: True at the controller's end, which opens odd streams.
        hello: What to say of ourselves in the first frame.
    """

    def __init__(self, *, initiator: bool, hello: Mapping[str, Any]) -> None:
        self._parity = 1 if initiator else 0
        self._next_local = 1 if initiator else 2
        self._last_remote = -1 if initiator else 0
        self._streams: dict[int, _Stream] = {}
        self._ready: deque[int] = deque()
        self._control: deque[bytes] = deque()
        self._control_size = 0
        self._buffer = bytearray()
        self._greeted = False
        self._send_control(HELLO, 0, encode_json({"protocol": PROTOCOL_VERSION, **hello}))

    # --- what comes in

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes from the other end and yield what they mean, one event at a time.

        Raises:
            ProtocolError: The other end broke the protocol; nothing more may be asked of this object.
        """
        buffer = self._buffer
        buffer += data
        start, available = 0, len(buffer)
        try:
            while available - start >= HEADER.size:
                kind, tag, stream, length = HEADER.unpack_from(buffer, start)
                end = start + HEADER.size + length
                if end > available:
                    break
                payload = bytes(memoryview(buffer)[start + HEADER.size : end])
                start = end
                event = self._frame(kind, tag, stream, payload)
                if event is not None:
                    yield event
        finally:
            del buffer[:start]

    def _frame(self, kind: int, tag: int, number: int, payload: bytes) -> Event | None:
        if not self._greeted and kind != HELLO:
            raise ProtocolError("the first frame is not HELLO")
        if kind != DATA and tag:
            raise ProtocolError(f"frame type {kind} carries no tag")
        if kind in _EMPTY_FRAMES and payload:
            raise ProtocolError(f"frame type {kind} carries no payload")
        if kind in (HELLO, PING, PONG):
            return self._link_frame(kind, number, payload)
        if kind == OPEN:
            return self._opened(number, payload)
        if kind not in (DATA, CREDIT, END, RESET):
            raise ProtocolError(f"unknown frame type {kind}")
        stream = self._streams.get(number)
        if stream is None:
            self._check_was_open(number)
            return None
        if kind == DATA:
            return self._data(number, stream, tag, payload)
        if kind == CREDIT:
            return self._credited(number, stream, payload)
        if kind == END:
            if stream.end_received:
                raise ProtocolError("a stream was ended twice")
            stream.end_received = True
            self._forget_if_over(number, stream)
            return Ended(number)
        reason = decode_json(payload)
        del self._streams[number]
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
            self._send_control(PONG, 0, payload)
            return None
        return Ponged(payload)

    def _opened(self, number: int, payload: bytes) -> Event | None:
        if number % 2 == self._parity or number <= self._last_remote:
            raise ProtocolError(f"stream {number} is not the other end's next one")
        self._last_remote = number
        request = decode_json(payload)
        theirs = sum(1 for known in self._streams if known % 2 != self._parity)
        if theirs >= MAX_STREAMS:
            self._send_control(
                RESET, number, encode_json({"code": "too_many_streams", "message": ""})
            )
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
        if len(payload) != _CREDIT.size:
            raise ProtocolError("a CREDIT frame carries four bytes")
        stream.send_credit += _CREDIT.unpack(payload)[0]
        if stream.send_credit > INITIAL_CREDIT:
            raise ProtocolError("the other end gave back more credit than was used")
        self._make_ready(number, stream)
        return Credited(number)

    def _check_was_open(self, number: int) -> None:
        ours = number % 2 == self._parity
        if not number or (number >= self._next_local if ours else number > self._last_remote):
            raise ProtocolError(f"stream {number} was never opened")

    # --- what goes out

    def open(self, request: Mapping[str, Any]) -> int:
        """Open a stream with a request and return its number.

        Raises:
            ValueError: The request is longer than a frame.
        """
        number = self._next_local
        self._send_control(OPEN, number, encode_json(request))
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
        view = memoryview(data)
        size = len(view)
        for start in range(0, size, MAX_PAYLOAD) if size else (0,):
            piece = view[start : start + MAX_PAYLOAD]
            more = MORE if start + MAX_PAYLOAD < size else 0
            stream.queue.append(HEADER.pack(DATA, tag | more, number, len(piece)) + piece)
            stream.queued += HEADER.size + len(piece)
        self._make_ready(number, stream)

    def end(self, number: int) -> None:
        """Half-close: say that nothing more comes, after what is queued."""
        stream = self._streams.get(number)
        if stream is None or stream.end_queued:
            return
        stream.end_queued = True
        stream.queue.append(HEADER.pack(END, 0, number, 0))
        stream.queued += HEADER.size
        self._make_ready(number, stream)

    def reset(self, number: int, code: str = "cancelled", message: str = "") -> None:
        """Give a stream up: drop what is queued and tell the other end why."""
        if self._streams.pop(number, None) is None:
            return
        reason = encode_json({"code": code, "message": message[:4096]})
        self._send_control(RESET, number, reason)

    def consumed(self, number: int, cost: int) -> None:
        """Say that ``cost`` bytes of received data were taken, so that more may come."""
        stream = self._streams.get(number)
        if stream is None or stream.end_received:
            return
        stream.unreported += cost
        if stream.unreported >= CREDIT_BATCH:
            stream.receive_credit += stream.unreported
            self._send_control(CREDIT, number, _CREDIT.pack(stream.unreported))
            stream.unreported = 0

    def ping(self, token: bytes) -> None:
        """Ask the other end for a sign of life; the answer is a :class:`Ponged`."""
        self._send_control(PING, 0, token)

    def queued(self, number: int) -> int:
        """The bytes that wait to be sent on a stream; 0 when it is over."""
        stream = self._streams.get(number)
        return stream.queued if stream else 0

    def is_open(self, number: int) -> bool:
        """Whether the stream is open in at least one direction."""
        return number in self._streams

    def pull(self, size: int = 256 * 1024) -> bytes:
        """The next bytes to send, about ``size`` at most; empty when there is nothing to send.

        Control frames go first; then each stream that has data and credit sends one frame in turn.
        """
        parts: list[bytes] = []
        room = size
        while self._control and room > 0:
            frame = self._control.popleft()
            self._control_size -= len(frame)
            parts.append(frame)
            room -= len(frame)
        while self._ready and room > 0:
            number = self._ready.popleft()
            stream = self._streams.get(number)
            if stream is None:
                continue
            stream.ready = False
            frame = stream.queue.popleft()
            stream.queued -= len(frame)
            if frame[0] == END:
                stream.end_sent = True
            else:
                stream.send_credit -= len(frame)
            parts.append(frame)
            room -= len(frame)
            self._make_ready(number, stream)
            self._forget_if_over(number, stream)
        return b"".join(parts)

    def _can_send(self, stream: _Stream) -> bool:
        if not stream.queue:
            return False
        head = stream.queue[0]
        return head[0] == END or len(head) <= stream.send_credit

    def _make_ready(self, number: int, stream: _Stream) -> None:
        if not stream.ready and self._can_send(stream):
            stream.ready = True
            self._ready.append(number)

    def _send_control(self, kind: int, number: int, payload: bytes) -> None:
        frame = encode(kind, number, payload)
        self._control_size += len(frame)
        if self._control_size > MAX_PENDING_CONTROL:
            raise ProtocolError("the other end makes us answer faster than it reads")
        self._control.append(frame)

    def _forget_if_over(self, number: int, stream: _Stream) -> None:
        if stream.end_sent and stream.end_received:
            self._streams.pop(number, None)
