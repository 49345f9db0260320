"""One line of the log: how it is written, and how one is read that nobody vouches for.

A line is a JSON object in ASCII, so control characters and everything else that a terminal or a
parser could take for more than text is escaped. Its last member is ``hash``: the SHA-256 of the
line as it is without that member. Its ``prev`` is the hash of the line before.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, cast

START = "0" * 64
"""The ``prev`` of a log's first line."""
MAX_LINE_BYTES = 64 * 1024
MAX_TEXT = 256
"""The longest text of a field, in characters; the longest line follows from it."""
MAX_SEQ = 2**53

_SEAL = re.compile(rb',"hash":"([0-9a-f]{64})"\}\n')
_SEAL_BYTES = len(',"hash":""}\n') + 64
_HEAD = re.compile(rb"([0-9]{20}) ([0-9a-f]{64})\n")
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class BadLine(Exception):
    """A line that is not one of ours as it was written."""

    def __init__(self, fault: Literal["torn", "changed", "damaged"], reason: str) -> None:
        super().__init__(reason)
        self.fault: Literal["torn", "changed", "damaged"] = fault
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log."""

    seq: int = 0
    """The number of its last line; 0 when it has none."""
    hash: str = START

    def encode(self) -> bytes:
        """As it stands in its file, always of one length."""
        return f"{self.seq:020d} {self.hash}\n".encode()

    @classmethod
    def decode(cls, data: bytes) -> Head | None:
        """What a file says; None when it says nothing that makes sense."""
        found = _HEAD.fullmatch(data)
        return cls(int(found[1]), found[2].decode()) if found else None


@dataclass(frozen=True, slots=True)
class Line:
    """A line whose hash is right."""

    seq: int
    """Its number, from 1."""
    time: float
    """Unix time, seconds."""
    slot: str
    kind: str
    prev: str
    hash: str
    values: dict[str, Any]
    """All of its members."""
    text: str
    """The line as it is stored: printable ASCII."""

    @property
    def head(self) -> Head:
        """The end of a log that ends here."""
        return Head(self.seq, self.hash)


def write_line(after: Head, time: float, slot: str, kind: str, values: dict[str, Any]) -> bytes:
    """The line that follows a log's end."""
    members: dict[str, object] = {
        "seq": after.seq + 1,
        "time": round(time, 6),
        "slot": slot,
        "kind": kind,
    }
    for name, value in values.items():
        members[name] = _writable(value)
    members["prev"] = after.hash
    text = _encode(members)
    return f'{text[:-1]},"hash":"{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()


def head_of(line: bytes, after: Head) -> Head:
    """The end of a log to which a line of :func:`write_line` was added."""
    return Head(after.seq + 1, line[-67:-3].decode())


def _writable(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}…"
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < MAX_SEQ else "beyond 2**53"
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    return _writable(str(value))


def read_line(data: bytes) -> Line:
    """A line of a file that anybody may have written.

    Raises:
        BadLine: It is cut off, was changed, or is no line of a log.
    """
    if not data.endswith(b"\n"):
        if len(data) > MAX_LINE_BYTES:
            raise BadLine("damaged", f"it is longer than {MAX_LINE_BYTES} bytes")
        raise BadLine("torn", "it is cut off")
    seal = _SEAL.fullmatch(data, max(len(data) - _SEAL_BYTES, 0))
    if seal is None:
        raise BadLine("changed", "it does not end with its hash")
    digest = hashlib.sha256(data[: seal.start()] + b"}").hexdigest()
    if digest != seal[1].decode():
        raise BadLine("changed", "its hash is not that of its content")
    text = data[:-1].decode("ascii", "replace")
    if not text.isascii() or not text.isprintable():
        raise BadLine("damaged", "it has characters that are never written")
    try:
        values: object = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise BadLine("damaged", "it is not JSON") from exc
    return _line(values, digest, text)


def _line(values: object, digest: str, text: str) -> Line:
    members = cast(dict[str, Any], values) if isinstance(values, dict) else {}
    seq, time, prev = members.get("seq"), members.get("time"), members.get("prev")
    slot, kind = members.get("slot"), members.get("kind")
    if (
        type(seq) is not int
        or not 0 < seq < MAX_SEQ
        or not isinstance(time, float | int)
        or not 0 <= time < MAX_SEQ
        or not isinstance(prev, str)
        or not isinstance(slot, str)
        or not isinstance(kind, str)
    ):
        raise BadLine("damaged", "it is not a line of an audit log")
    return Line(seq, time, slot, kind, prev, digest, members, text)
