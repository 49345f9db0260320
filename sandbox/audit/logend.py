"""Where a log ends when a controller comes to it, whoever left it and however."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sandbox.audit import logfiles
from sandbox.audit.chain import MAX_LINE_BYTES, BadLine, Head, Line, read_line


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of a log as it is found."""

    paths: list[Path]
    """The segments that hold whole lines."""
    last: Line | None
    """The last of these lines; None when it is a bad one, or there is none."""
    size: int
    """The bytes of the newest segment up to the end of that line."""
    torn: bytes
    """What comes after it."""
    emptied: list[Path]
    """Newer segments, in which nothing is but that."""

    @classmethod
    def of(cls, paths: list[Path]) -> LogEnd:
        """Find it in a log's segments.

        Raises:
            OSError: One cannot be read.
        """
        emptied: list[Path] = []
        torn = b""
        while paths:
            last, size, rest = _last_line(paths[-1])
            torn = rest + torn
            if size:
                return cls(paths, last, size, torn, emptied)
            emptied.append(paths[-1])
            paths = paths[:-1]
        return cls([], None, 0, torn, emptied)

    def continued(self, said: Head | None) -> tuple[str, Head]:
        """Where the log goes on, and what is wrong with its end; nothing when that is empty.

        When something is wrong, the next line is numbered and linked as if it had not happened: a
        restart must not heal what ``verify`` would find.
        """
        last, paths = self.last, self.paths
        if not paths and said in (None, Head()):
            return "", Head()
        if said and last and said in (last.head, Head(last.seq - 1, last.prev)):
            return "", last.head  # a controller that was killed had no time to say the last line
        if said is None:
            reason, head = "the record of the log's end is missing", Head(last.seq if last else 0)
        elif last is None:
            reason, head = "the log's last line is missing or damaged", said
        elif last.seq < said.seq:
            reason, head = f"lines {last.seq + 1} to {said.seq} are missing", said
        elif last.seq == said.seq:
            reason, head = "the log's last line is another one", said
        else:
            reason, head = "the log is longer than its last writer left it", last.head
        newest = logfiles.first_seq(paths[-1]) if paths else 0
        return reason, head if head.seq >= newest else Head(newest)


def _last_line(path: Path) -> tuple[Line | None, int, bytes]:
    """The last whole line of a segment, unless it is a bad one, where it ends, and what follows."""
    with open(path, "rb", opener=logfiles.no_link) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 2 * MAX_LINE_BYTES, 0))
        data = file.read(2 * MAX_LINE_BYTES)
    stop = data.rfind(b"\n") + 1
    torn = data[stop:]
    try:
        last = read_line(data[data.rfind(b"\n", 0, max(stop - 1, 0)) + 1 : stop])
    except BadLine:
        last = None
    return last, size - len(torn), torn
