"""What a link is made of: frames, the events they mean, and how messages are written.

Both ends of a link share this module: the controller and the supervisor inside the container.
``sandbox.link.mux`` makes streams of it. The format is described in ``docs/link.md``.

Standard library and ``sandbox.errors`` only: this file is also copied into the images.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sandbox.errors import ProtocolError

PROTOCOL_VERSION = 1
HEADER = struct.Struct("!BBIH")
MAX_PAYLOAD = 0xFFFF
INITIAL_CREDIT = 256 * 1024
# What a DATA frame costs beside its payload: about what keeping a piece takes, so that credit
# bounds memory even when the pieces are tiny.
FRAME_COST = 64
# Messages are cut so that a whole number of pieces uses up the credit.
PIECE_SIZE = 64 * 1024 - FRAME_COST
MAX_STREAMS = 256
MAX_PENDING_ANSWERS = 1024 * 1024
MAX_JSON_DEPTH = 64
CREDIT_BATCH = INITIAL_CREDIT // 4
PULL_SIZE = 256 * 1024

HELLO, OPEN, DATA, CREDIT, END, RESET, PING, PONG = range(8)

JSON, BYTES, STDERR, KERNEL = range(4)
MORE = 0x80

CREDIT_COUNT = struct.Struct("!I")
_LENGTH = struct.Struct("!I")
MAX_LENGTHS = 255


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
        return len(self.data) + FRAME_COST


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


def encode(kind: int, stream: int = 0, payload: bytes = b"", tag: int = 0) -> bytes:
    """Encode one frame.

    Args:
        stream: The stream's number; 0 for frames about the link itself.
        tag: For ``DATA``, the kind of data, with ``MORE`` set when the message goes on.

    Raises:
        ValueError: The payload is too long.
    """
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame carries at most {MAX_PAYLOAD} bytes, not {len(payload)}")
    return HEADER.pack(kind, tag, stream, len(payload)) + payload


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Encode an object as compact JSON in UTF-8.

    Raises:
        ValueError: It holds a lone surrogate, which UTF-8 cannot express, or no JSON value.
    """
    return _encoder.encode(value).encode()


def decode_json(data: bytes) -> dict[str, Any]:
    """Decode a JSON object from the other end.

    What is not UTF-8, and lone surrogates, become replacement characters and question marks: a
    name or an output may hold them, and they would fail later, where nobody expects it.

    Raises:
        ProtocolError: It is not a JSON object, or is nested deeper than ``MAX_JSON_DEPTH``.
    """
    try:
        value: object = _decoder.decode(data.decode("utf-8", "replace"))
        if b"\\ud" in data or b"\\uD" in data:
            text = json.dumps(value, ensure_ascii=False)
            value = json.loads(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError) as exc:
        raise ProtocolError("a frame's JSON does not parse") from exc
    if not isinstance(value, dict):
        raise ProtocolError("a frame's JSON is not an object")
    found = cast("dict[str, Any]", value)
    if data.count(b"{") + data.count(b"[") > MAX_JSON_DEPTH and _deeper(found, MAX_JSON_DEPTH):
        raise ProtocolError(f"a frame's JSON is nested deeper than {MAX_JSON_DEPTH}")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Made once: json.loads and json.dumps make new ones for every call that is not plain.
_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_decoder = json.JSONDecoder(parse_constant=_no_constant)


def _deeper(value: dict[str, Any], levels: int) -> bool:
    """Whether a value is nested deeper than ``levels``; walks level by level, not by recursion."""
    layer: list[Any] = [value]
    for _ in range(levels):
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner.extend(cast("dict[str, Any]", item).values())
            elif isinstance(item, list):
                inner.extend(cast("list[Any]", item))
        if not inner:
            return False
        layer = inner
    return any(isinstance(item, (dict, list)) for item in layer)


def pack_parts(parts: Sequence[bytes]) -> bytes:
    """Join the parts of a KERNEL message: how many, then each with its length before it.

    Raises:
        ValueError: There are more than ``MAX_LENGTHS``.
    """
    if len(parts) > MAX_LENGTHS:
        raise ValueError(f"a kernel message has at most {MAX_LENGTHS} parts, not {len(parts)}")
    pieces = [bytes((len(parts),))]
    for part in parts:
        pieces += (_LENGTH.pack(len(part)), part)
    return b"".join(pieces)


def unpack_parts(data: bytes) -> list[bytes]:
    """Take the parts of a KERNEL message apart again.

    Raises:
        ProtocolError: The lengths do not add up to exactly the data.
    """
    parts: list[bytes] = []
    at, size = 1, len(data)
    for _ in range(data[0] if data else 0):
        start = at + _LENGTH.size
        if start > size:
            break
        at = start + _LENGTH.unpack_from(data, at)[0]
        parts.append(data[start:at])
    if not data or len(parts) != data[0] or at != size:
        raise ProtocolError("the parts of a kernel message do not fill it exactly")
    return parts
