"""The files of a log, for the one controller that writes them (it holds the slot).

A line goes to the end of the newest segment in one write(2); then ``head`` is rewritten in place.
So a controller that is killed leaves at most one line that ``head`` does not know, or one that is
cut off. Anything else that is found at an opening was not left by a controller: it is said in the
log, and the log is continued in such a way that ``verify`` still finds it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.audit import logfiles
from sandbox.audit.chain import BadLine, Head, Line, head_of, read_line, write_line
from sandbox.audit.entries import Entry, RepairEntry, RetentionEntry
from sandbox.audit.logend import LogEnd

SEGMENTS = 16
"""A log that is as large or as old as it may be has about this many segments."""
LARGEST_SEGMENT_BYTES = 16 * 1024 * 1024
_SAFELY = os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Segment:
    path: Path
    size: int
    began_at: float
    """Unix time of its first line."""
    last_at: float
    """Unix time of its last line, or a little later."""


class Writer:
    """Appends lines to a slot's log; blocks, for some tens of microseconds.

    Raises:
        OSError: The folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        slot: str,
        *,
        max_bytes: int,
        max_age_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._slot = slot
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._segment_bytes = min(max_bytes // SEGMENTS, LARGEST_SEGMENT_BYTES)
        self._clock = clock
        self._fd = self._head_fd = -1
        self._segments: list[_Segment] = []
        self.head = Head()
        self.is_head_written = True
        self.repairs: list[Entry] = []
        """What is to be written before anything else."""
        self._open(None)

    # --- writing

    def append(self, entry: Entry, time: float) -> None:
        """Write an entry.

        Args:
            time: When; Unix time, seconds.

        Raises:
            OSError: It was not written.
        """
        if not self._is_as_left():
            self._open(self.head)
        while self.repairs:
            self._append(self.repairs[0], self._clock())
            self.repairs.pop(0)
        self._append(entry, time)

    def _append(self, entry: Entry, time: float) -> None:
        if not self.is_head_written:
            self._write_head()
        line = write_line(self.head, time, self._slot, entry.kind, entry.values())
        if self._fd < 0 or self._is_full(len(line)):
            self._roll(time)
        segment = self._segments[-1]
        written = os.write(self._fd, line)
        if written < len(line):
            os.ftruncate(self._fd, segment.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        segment.size += written
        segment.last_at = time
        self.head = head_of(line, self.head)
        self.is_head_written = False
        with suppress(OSError):  # before the next line it is tried again
            self._write_head()

    def _write_head(self) -> None:
        os.pwrite(self._head_fd, self.head.encode(), 0)
        self.is_head_written = True

    def _is_full(self, more_bytes: int) -> bool:
        segment = self._segments[-1]
        if not segment.size:
            return False
        age_s = self._clock() - segment.began_at
        return segment.size + more_bytes > self._segment_bytes or age_s > self._max_age_s / SEGMENTS

    def _roll(self, time: float) -> None:
        """Begin a segment with the next line."""
        path = self._folder / logfiles.segment_name(self.head.seq + 1)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _SAFELY
        old, self._fd = self._fd, os.open(path, flags, 0o600)
        if old >= 0:
            os.close(old)
        self._segments.append(_Segment(path, 0, time, time))

    def _is_as_left(self) -> bool:
        """Whether nobody else has removed the newest segment or written to it."""
        if self._head_fd < 0:
            return False
        if self._fd < 0:
            return True
        found = os.fstat(self._fd)
        return found.st_nlink == 1 and found.st_size == self._segments[-1].size

    # --- retention

    def retention(self) -> RetentionEntry | None:
        """What should be removed now: to be appended before :meth:`remove` does it.

        Raises:
            OSError: A new segment was needed and could not be made.
        """
        if not self._segments or not self.head.seq:
            return None
        oldest_s = self._clock() - self._max_age_s
        if self._fd >= 0 and self._segments[-1].last_at < oldest_s:
            self._roll(self._clock())  # the newest one is too old as well
        total = sum(segment.size for segment in self._segments)
        count, reason = 0, ""
        for segment in self._segments[:-1]:
            if segment.last_at < oldest_s:
                reason = f"older than {self._max_age_s:g} s"
            elif total > self._max_bytes:
                reason = f"larger than {self._max_bytes} bytes"
            else:
                break
            total -= segment.size
            count += 1
        if not count:
            return None
        kept = self._segments[count].path
        through = logfiles.first_seq(kept) - 1
        if through == self.head.seq:
            last = self.head.hash
        else:
            first = _first_line(kept)
            last = first.prev if first else ""
        return RetentionEntry(through=through, last_hash=last, reason=reason)

    def remove(self, entry: RetentionEntry) -> None:
        """Remove the segments that an entry names, oldest first.

        Raises:
            OSError: One could not be removed.
        """
        first = logfiles.first_seq
        while len(self._segments) > 1 and first(self._segments[0].path) <= entry.through:
            self._segments[0].path.unlink(missing_ok=True)
            self._segments.pop(0)
        for path in self._folder.glob("*.torn"):
            if path.name <= logfiles.torn_name(entry.through):
                path.unlink(missing_ok=True)

    # --- opening

    def _open(self, known: Head | None) -> None:
        """Find the log's end, which this process left at ``known`` if it has written already."""
        self.close()
        self.repairs = []
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if not stat.S_ISDIR(os.lstat(self._folder).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        self._folder.chmod(0o700)
        said = known or logfiles.read_head(self._folder)
        head_fd = os.open(self._folder / logfiles.HEAD, os.O_RDWR | os.O_CREAT | _SAFELY, 0o600)
        try:
            end = LogEnd.of(logfiles.segments(self._folder))
            reason, self.head = end.continued(said)
            self._set_aside(end)
            last_at = end.last.time if end.last else self._clock()
            self._segments = _measured(end.paths, last_at)
            if reason:
                self.repairs.append(RepairEntry(reason=reason))
            elif end.paths:
                self._fd = os.open(end.paths[-1], os.O_WRONLY | os.O_APPEND | _SAFELY)
        except OSError:
            os.close(head_fd)
            raise
        self._head_fd = head_fd
        self.is_head_written = False

    def _set_aside(self, end: LogEnd) -> None:
        """Move what is left of a line that was cut off out of the log, and have it said.

        A file of this name that is there already was set aside by a controller that was killed
        before it could say so.
        """
        path = self._folder / logfiles.torn_name(self.head.seq + 1)
        if end.torn:
            with open(path, "ab", opener=_private) as file:
                file.write(end.torn)
        for emptied in end.emptied:
            emptied.unlink()
        if end.paths:
            os.truncate(end.paths[-1], end.size)
        if path.exists():
            torn = path.read_bytes()
            self.repairs.append(
                RepairEntry(
                    reason="the last line was cut off",
                    torn_file=path.name,
                    torn_bytes=len(torn),
                    torn_sha256=hashlib.sha256(torn).hexdigest(),
                )
            )

    def close(self) -> None:
        """Close the files, and let the disk have what it has not yet; harmless when done."""
        head_fd, self._head_fd = self._head_fd, -1
        fd, self._fd = self._fd, -1
        if head_fd >= 0:
            os.close(head_fd)
        if fd >= 0:
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | _SAFELY, 0o600)


def _measured(paths: list[Path], last_at: float) -> list[_Segment]:
    """The segments that are there."""
    found: list[_Segment] = []
    for path in reversed(paths):
        first = _first_line(path)
        began_at = first.time if first else last_at
        found.append(_Segment(path, path.stat().st_size, began_at, last_at))
        last_at = began_at
    return found[::-1]


def _first_line(path: Path) -> Line | None:
    """The first line of a segment; None when there is none that can be read."""
    for data in logfiles.lines(path):
        with suppress(BadLine):
            return read_line(data)
        break
    return None
