"""The files of a log, for whoever reads them.

A folder holds *segments*, named by the number of their first line, and ``head``, which says where
the log ends. Nothing that is read here is believed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sandbox.audit.chain import MAX_LINE_BYTES, Head

HEAD = "head"
_SEGMENT = re.compile(r"([0-9]{16})\.jsonl")
_HEAD_BYTES = len(Head().encode())


def segment_name(seq: int) -> str:
    """The name of the segment whose first line has this number."""
    return f"{seq:016d}.jsonl"


def torn_name(seq: int) -> str:
    """The name of the file that keeps what was cut off where this line would have been."""
    return f"{seq:016d}.torn"


def first_seq(path: Path) -> int:
    """The number of a segment's first line, by its name."""
    return int(path.name.partition(".")[0])


def segments(folder: Path) -> list[Path]:
    """The segments, oldest first; none when there is no such folder."""
    try:
        names = [name for name in os.listdir(folder) if _SEGMENT.fullmatch(name)]
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names)]


def lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    """The lines of a segment with their ends, from an offset; one that is too long in pieces."""
    with open(path, "rb", opener=no_link) as file:
        file.seek(offset)
        while data := file.readline(MAX_LINE_BYTES + 1):
            yield data


def read_head(folder: Path) -> Head | None:
    """Where the log ends as its last writer said; None when that cannot be known."""
    try:
        with open(folder / HEAD, "rb", opener=no_link) as file:
            return Head.decode(file.read(_HEAD_BYTES + 1))
    except OSError:
        return None


def no_link(path: str, flags: int) -> int:
    """An opener that follows no symbolic link and waits for nothing."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
