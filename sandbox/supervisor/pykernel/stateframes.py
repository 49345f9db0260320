"""How variables travel from one kernel to another: named records of bytes, one after the other.

A stream of frames, each a kind and a length before its data::

    HEADER  JSON: what the names need besides (the folder, the module search path)
    NAME    JSON: ``name``, and ``at``, how many objects the records before have numbered
      PICKLE  bytes, as often as it takes
    WHOLE   what was begun is whole           -- or
    LEFT    JSON: ``name`` and ``reason``: it is not carried, and what came of it does not count
    END     nothing follows

A record is part of one long pickle, so that what two names share is one object again. The names can
be loaded as they come; a stream that was cut has lost no more than what was not whole.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import types
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

HEADER, NAME, PICKLE, WHOLE, LEFT, END = b"H", b"N", b"P", b"W", b"L", b"Z"
MAX_JSON_BYTES = 64 * 1024
_HEAD = struct.Struct(">cI")
_PIECE_BYTES = 2**20


class CutStateError(BaseException):
    """The stream ended, or makes no sense, before its end; no code of a value may hide it."""


class UnreadStateError(BaseException):
    """Nobody reads the stream any more."""


class TooLongError(BaseException):
    """Raised in whatever runs when its time is up; no ``except Exception`` stops it."""


class _Held:
    """A block that is not ended by a time that is up: half a frame would be the end of all."""

    def __init__(self) -> None:
        self.depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_exc: object) -> None:
        self.depth -= 1


_HELD = _Held()


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Raise :class:`TooLongError` in the block when it takes longer, and again if it goes on."""

    def up(_signal: int, _frame: types.FrameType | None) -> None:
        if not _HELD.depth:
            raise TooLongError

    before = signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class FrameWriter:
    """Writes frames to a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def tell(self, kind: bytes, said: Mapping[str, Any] | None = None) -> None:
        """Write a frame of JSON."""
        self.write(kind, json.dumps(said).encode() if said is not None else b"")

    def write(self, kind: bytes, data: bytes | memoryview) -> None:
        """Write bytes, in as many frames as they need."""
        view = memoryview(data).cast("B")
        while True:
            piece, view = view[:_PIECE_BYTES], view[_PIECE_BYTES:]
            with _HELD:
                self._put(_HEAD.pack(kind, len(piece)))
                self._put(piece)
            if not view:
                return

    def _put(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:
            raise UnreadStateError from exc


class FrameReader:
    """Reads frames from a descriptor, a piece at a time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._left = 0
        self.kind = END
        """Of the present frame."""

    def next(self) -> bytes:
        """Go to the next frame, past what is unread of this one; its kind.

        Raises:
            CutStateError: There is none.
        """
        while self._left:
            self.read(_PIECE_BYTES)
        with _HELD:
            head = bytearray(_HEAD.size)
            self._fill(head)
            self.kind, self._left = _HEAD.unpack(head)
        if self.kind not in (HEADER, NAME, PICKLE, WHOLE, LEFT, END):
            raise CutStateError("a frame of no known kind")
        return self.kind

    def read(self, size: int) -> bytes:
        """Some of the frame's data, at least a byte; none when there is no more.

        Raises:
            CutStateError: The stream ended within the frame.
        """
        data = bytearray(min(size, self._left))
        return bytes(data[: self.readinto(data)])

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """The same, into a buffer; how many bytes."""
        view = memoryview(buffer)[: self._left]
        with _HELD:
            count = self._get(view)
            self._left -= count
        return count

    def json(self) -> dict[str, Any]:
        """The frame's data as JSON.

        Raises:
            CutStateError: It is none, or too much.
        """
        if self._left > MAX_JSON_BYTES:
            raise CutStateError("a frame of JSON is too large")
        data = bytearray(self._left)
        with _HELD:
            self._fill(data)
            self._left = 0
        try:
            found = json.loads(data)
        except ValueError as exc:
            raise CutStateError("a frame of JSON is none") from exc
        if not isinstance(found, dict):
            raise CutStateError("a frame of JSON is no object")
        return found  # pyright: ignore[reportUnknownVariableType]

    def _fill(self, buffer: bytearray) -> None:
        view = memoryview(buffer)
        while view:
            view = view[self._get(view) :]

    def _get(self, view: memoryview) -> int:
        """Read at least a byte, unless none is wanted."""
        try:
            count = os.readv(self._fd, [view]) if view else 0
        except OSError as exc:
            raise CutStateError("the stream cannot be read") from exc
        if view and not count:
            raise CutStateError("the stream was cut")
        return count
