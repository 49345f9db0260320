"""Whether a log is as it was written: every line there, unchanged, and in its place.

Nothing in the folder is trusted: lengths are bounded, and whatever cannot be read is the finding.
What this cannot see is a log that somebody with the controller's own rights has written anew from
some line on, ``head`` included, unless a later head is known from elsewhere (``expected``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandbox.audit import logfiles
from sandbox.audit.chain import START, BadLine, Head, Line, read_line

Kind = Literal[
    "changed", "removed", "reordered", "repeated", "torn", "truncated", "damaged", "foreign"
]

TRIES = 4
TRY_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong with a log."""

    kind: Kind
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found."""

    lines: int
    """How many lines were read and are right."""
    first: int
    """The number of the first of them; 0 when there is none."""
    head: Head
    """The end of the log, or of what is right of it."""
    fault: Fault | None
    repairs: tuple[str, ...] = ()
    """What controllers had to mend, in their words, with the lines' numbers."""

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None


def verify(
    folder: Path, slot: str, expected: Head | None = None, *, tries: int = TRIES
) -> Verification:
    """Check the log in a folder.

    Args:
        expected: A head that was written down earlier, elsewhere: the log must still hold it.
        tries: How often to look at what a controller at work may just be changing.

    Raises:
        OSError: A file is there and cannot be read.
    """
    for _ in range(tries - 1):
        try:
            verdict = _Check(folder, slot, expected).run()
        except FileNotFoundError:
            pass
        else:
            if verdict.fault is None or verdict.fault.kind not in ("torn", "removed"):
                return verdict
        time.sleep(TRY_AGAIN_S)
    return _Check(folder, slot, expected).run()


class _Wrong(Exception):
    def __init__(self, kind: Kind, place: str, reason: str) -> None:
        super().__init__(kind, place, reason)
        self.fault = Fault(kind, place, reason)


class _Check:
    """One pass over a log."""

    def __init__(self, folder: Path, slot: str, expected: Head | None) -> None:
        self._folder = folder
        self._slot = slot
        self._expected = expected
        self._lines = 0
        self._first: Line | None = None
        self._end = Head()
        self._removed = Head()
        """The last line that was removed because of its age or the log's size."""
        self._repairs: list[str] = []

    def run(self) -> Verification:
        fault = None
        try:
            self._run()
        except _Wrong as exc:
            fault = exc.fault
        first = self._first.seq if self._first else 0
        return Verification(self._lines, first, self._end, fault, tuple(self._repairs))

    def _run(self) -> None:
        said = logfiles.read_head(self._folder)  # first: the log may grow meanwhile, but not shrink
        paths = logfiles.segments(self._folder)
        if said is None:
            reason = "nothing says where the log ends" if paths else "there is no log"
            raise _Wrong("removed", str(self._folder / logfiles.HEAD), reason)
        wanted = [said, self._expected] if self._expected else [said]
        for path, number, data in _numbered(paths):
            line = self._check(path, number, data)
            for head in wanted:
                if head.seq == line.seq and head.hash != line.hash:
                    raise _Wrong("changed", _at(path, number), "it is not the line that was there")
            self._take(path, number, line)
        for head in wanted:
            self._check_end(head, paths)
        self._check_start(paths)

    def _check(self, path: Path, number: int, data: bytes) -> Line:
        """A line that is right in itself and follows the one before."""
        place = _at(path, number)
        try:
            line = read_line(data)
        except BadLine as exc:
            raise _Wrong(exc.fault, place, exc.reason) from exc
        if line.slot != self._slot:
            raise _Wrong("foreign", place, "it is a line of another slot's log")
        if number == 1 and line.seq != logfiles.first_seq(path):
            raise _Wrong("reordered", place, "its file is not named by its number")
        if self._first is None:
            return line
        wanted = self._end.seq + 1
        if line.seq > wanted:
            span = f"{wanted} to {line.seq - 1}" if line.seq - 1 > wanted else str(wanted)
            if self._comes_later(wanted):
                raise _Wrong("reordered", place, f"line {wanted} comes after line {line.seq}")
            raise _Wrong("removed", place, f"before it, {span} of the log's lines is missing")
        if line.seq < wanted:
            raise _Wrong("repeated", place, f"line {line.seq} comes after line {self._end.seq}")
        if line.prev != self._end.hash:
            raise _Wrong("changed", place, "it does not follow the line before it as that stands")
        return line

    def _take(self, path: Path, number: int, line: Line) -> None:
        self._first = self._first or line
        self._lines += 1
        self._end = line.head
        if line.kind == "retention":
            through, last = line.values.get("through"), line.values.get("last_hash", "")
            if type(through) is int and through > self._removed.seq:
                self._removed = Head(through, str(last))
        elif line.kind == "repair":
            self._repairs.append(f"line {line.seq}: {str(line.values.get('reason'))[:256]!a}")

    def _check_end(self, head: Head, paths: list[Path]) -> None:
        missing = head.seq - self._end.seq
        if missing > 0:
            place = paths[-1].name if paths else str(self._folder)
            raise _Wrong("truncated", place, f"the last {missing} of {head.seq} lines are missing")

    def _check_start(self, paths: list[Path]) -> None:
        """Whether what is missing before the first line was removed because of its age or size."""
        first = self._first
        if first is None:
            return
        place = _at(paths[0], 1)
        if first.seq == 1:
            if first.prev != START:
                raise _Wrong("changed", place, "a first line follows no other")
            return
        if first.seq - 1 > self._removed.seq:
            raise _Wrong("removed", place, "the log's beginning is missing, and no line says why")
        if first.seq - 1 == self._removed.seq and self._removed.hash not in (first.prev, ""):
            raise _Wrong("changed", place, "it does not follow the line that was removed before it")
        if self._expected and 0 < self._expected.seq < first.seq:
            reason = f"line {self._expected.seq}, which was to be compared, is no longer there"
            raise _Wrong("removed", place, reason)

    def _comes_later(self, seq: int) -> bool:
        """Whether a line that is missing is somewhere else."""
        for _, _, data in _numbered(logfiles.segments(self._folder)):
            with suppress(BadLine):
                if read_line(data).seq == seq:
                    return True
        return False


def _numbered(paths: list[Path]) -> Iterator[tuple[Path, int, bytes]]:
    for path in paths:
        for number, data in enumerate(logfiles.lines(path), 1):
            yield path, number, data


def _at(path: Path, number: int) -> str:
    return f"{path.name}, line {number}"
