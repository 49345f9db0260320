"""Files' bytes: read into pieces, compared with them, and written out of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from sandbox.supervisor.snapshotkeeper.trees import Content

PIECE_BYTES = 1024 * 1024
_ZEROS = bytes(PIECE_BYTES)


def read(fd: int, size: int, like: Content | None, room: Callable[[int], None]) -> Content:
    """A file's first ``size`` bytes.

    Args:
        like: What it may have been before: pieces that are the same are shared with it.
        room: Is told of each number of bytes before they are kept, and raises if they do not fit.
    """
    known = dict(like.pieces) if like else {}
    pieces: list[tuple[int, bytes]] = []
    for at, length in _data(fd, size):
        piece = os.pread(fd, length, at)
        if not piece or piece == _ZEROS[: len(piece)]:
            continue
        before = known.get(at)
        if before is None or before != piece:
            room(len(piece))
            before = piece
        pieces.append((at, before))
    return Content(size, tuple(pieces))


def is_same(fd: int, content: Content) -> bool:
    """Whether a file has exactly these bytes, and is that long."""
    known = dict(content.pieces)
    found = 0
    for at, length in _data(fd, content.size):
        piece = os.pread(fd, length, at)
        if piece == _ZEROS[: len(piece)]:
            continue
        if known.get(at) != piece:
            return False
        found += 1
    return found == len(known) and os.fstat(fd).st_size == content.size


def write(fd: int, content: Content) -> None:
    """Make an empty file of it, holes and all."""
    os.ftruncate(fd, content.size)
    for at, piece in content.pieces:
        view = memoryview(piece)
        while view:
            written = os.pwrite(fd, view, at)
            view = view[written:]
            at += written


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file's bytes are to be read, at whole pieces, so that the same are found again."""
    at = 0
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole to the end
                return
            data = at  # a system that tells of no holes; what is all zeros counts as one
        at = max(at, data // PIECE_BYTES * PIECE_BYTES)
        if at < size:
            yield at, min(PIECE_BYTES, size - at)
        at += PIECE_BYTES
