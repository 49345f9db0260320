"""``sys.stdout`` and ``sys.stderr`` of cells: text streams over the descriptors 1 and 2."""

from __future__ import annotations

import array
import contextlib
import fcntl
import io
import os
import sys
import termios
import threading
import time
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from sandbox.supervisor.pykernel.pair import Pair

FLUSH_S = 0.1
MAX_MOVES = 64
"""So often it is looked whether a pipe that is read is empty: some child may fill it for ever."""
MIN_PAUSE_S, MAX_PAUSE_S = 0.00002, 0.002
_NOTHING = bytes(array.array("i").itemsize)
STREAMS = ((1, "stdout"), (2, "stderr"))


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A cell that runs, or has run."""

    parent: dict[str, Any] = field(default_factory=dict[str, Any])
    """The request that it came with."""


CELL: ContextVar[Cell | None] = ContextVar("cell", default=None)
"""Whose code runs: a task has it from the cell that made it."""


class Streams:
    """Both streams of the kernel, whose cell it is, and the order of all that is written.

    Args:
        pair: Where messages go.
        late: Publishes text (parent, name, text) of a cell that is no longer the present one.
    """

    def __init__(self, pair: Pair, late: Callable[[dict[str, Any], str, str], None]) -> None:
        self.cell = Cell()
        """The present cell, or the last one."""
        self._pair = pair
        self._late = late
        self._owner = os.getpid()
        self._last: CellStream | None = None
        self._kept = {fd: os.dup(fd) for fd, _ in STREAMS}
        self._streams = {name: CellStream(self, fd, name) for fd, name in STREAMS}
        self._install()
        os.register_at_fork(before=self.flush, after_in_child=self._forked)

    @staticmethod
    def usable(fds: list[int]) -> list[int]:
        """These descriptors, if they are new pipes; else none, and they are closed: there was no
        room for all."""
        if len(fds) == len(STREAMS):
            return fds
        for fd in fds:
            os.close(fd)
        return []

    def begin(self, cell: Cell, fresh: list[int]) -> None:
        """A cell begins: the streams are whole again, and go to new pipes where there are some."""
        for (fd, _), new in zip(STREAMS, fresh, strict=False):
            with contextlib.suppress(OSError):
                os.dup2(new, self._kept[fd], inheritable=False)
            os.close(new)
        for fd, _ in STREAMS:
            if not _same(fd, self._kept[fd]):
                os.dup2(self._kept[fd], fd)
        self.cell = cell
        CELL.set(cell)
        self.mend()

    def mend(self) -> None:
        """Replace what no longer can be written to, such as None, or a stream that was closed."""
        for fd, name in STREAMS:
            if _is_closed(self._streams[name]):
                self._streams[name] = CellStream(self, fd, name)
                setattr(sys, f"__{name}__", self._streams[name])
            stream: Any = getattr(sys, name, None)
            usable = callable(getattr(stream, "write", None)) and callable(
                getattr(stream, "flush", None)
            )
            if not usable or _is_closed(stream):
                setattr(sys, name, self._streams[name])

    def flush(self) -> None:
        """Write out what is in the streams, those of the user's own making included."""
        for _, name in STREAMS:
            own, stream = self._streams[name], cast("Any", getattr(sys, name, None))
            for each in (own,) if stream is own else (stream, own):
                with contextlib.suppress(Exception):
                    each.flush()

    def settle(self) -> None:
        """Before a message is sent: wait until what was printed has been read, within a bound."""
        if os.getpid() != self._owner:
            return
        for stream in self._streams.values():
            with contextlib.suppress(ValueError, OSError):
                io.TextIOWrapper.flush(stream)
        self._last = None
        _wait_read(*self._kept.values())

    @contextlib.contextmanager
    def holding(self) -> Generator[None]:
        """Hold the messages that are sent meanwhile until something else is sent or printed."""
        self.flush()
        self._last = None
        with self._pair.holding():
            yield

    def turn(self, stream: CellStream) -> None:
        """Another stream is written to than before: what the last one has got goes first."""
        last, self._last = self._last, stream
        if last is None:
            self._pair.flush()
        if last is None or os.getpid() != self._owner:
            return
        with contextlib.suppress(ValueError, OSError):
            io.TextIOWrapper.flush(last)
        _wait_read(self._kept[last.descriptor])

    @property
    def last(self) -> CellStream | None:
        """The stream that was written to last, unless a message was sent since."""
        return self._last

    def late(self, cell: Cell, name: str, text: str) -> None:
        """Publish what a cell says that is no longer the present one."""
        self._late(cell.parent, name, text)

    def of_this_thread(self) -> Cell:
        """The cell that has started this thread, as far as that is known."""
        found: Any = getattr(threading.current_thread(), "_sandbox_cell", None)
        return found if isinstance(found, Cell) else self.cell

    def descriptors(self) -> dict[int, int]:
        """The descriptors that lead to the supervisor: for each 1 for stdout, 2 for stderr."""
        return {fd: fd for fd, _ in STREAMS} | {kept: fd for fd, kept in self._kept.items()}

    def begin_anew(self) -> None:
        """In a branch, whose descriptors lead to pipes of its own."""
        self._owner = os.getpid()

    def _install(self) -> None:
        for _, name in STREAMS:
            setattr(sys, name, self._streams[name])
            setattr(sys, f"__{name}__", self._streams[name])
        start = threading.Thread.start

        def started(thread: threading.Thread) -> None:
            thread._sandbox_cell = CELL.get() or self.of_this_thread()  # type: ignore[attr-defined]
            start(thread)

        setattr(threading.Thread, "start", started)  # noqa: B010  # of another signature

    def _forked(self) -> None:
        """In a fork of the kernel: its output goes to the pipes of the cell that made it."""
        for kept in self._kept.values():
            with contextlib.suppress(OSError):
                os.close(kept)


class CellStream(io.TextIOWrapper):
    """One of the two: buffered by lines, and what a character cannot be written as is escaped."""

    def __init__(self, streams: Streams, fd: int, name: str) -> None:
        raw = io.FileIO(fd, "w", closefd=False)
        raw.name = f"<{name}>"
        super().__init__(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
        setattr(self, "mode", "w")  # noqa: B010  # as the interpreter says it
        self.descriptor = fd
        self.channel = name
        self._streams = streams
        self._flushed_at = 0.0
        self._pending_at = 0.0
        """When the first of what waits for the end of its line was written; 0 for nothing."""

    def write(self, text: str) -> int:
        """Write text; what another cell's threads and tasks say goes to that cell."""
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # anyone's
            return super().write(text)
        streams = self._streams
        cell = CELL.get() or streams.of_this_thread()
        if cell is not streams.cell:
            streams.late(cell, self.channel, text)
            return len(text)
        if streams.last is not self:
            streams.turn(self)
        now = time.monotonic()
        # ``print`` writes its parts one by one and its end at last, and the end may be empty.
        if now - (self._pending_at or now if text else self._flushed_at) > FLUSH_S:
            self._flushed_at = now
            super().flush()
            self._pending_at = 0.0
        if text:
            self._pending_at = 0.0 if text[-1] == "\n" else self._pending_at or now
        return super().write(text)


def _is_closed(stream: Any) -> bool:
    try:
        return getattr(stream, "closed", False) is True
    except ValueError:  # its buffer was taken from it
        return True


def _same(one: int, other: int) -> bool:
    try:
        first, second = os.fstat(one), os.fstat(other)
    except OSError:
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _wait_read(*fds: int) -> None:
    """Wait until nothing is in these pipes, but not for somebody who writes without an end.

    While nothing moves, the supervisor does not read: then it would not read a message either.
    """
    moves, pause_s = 0, MIN_PAUSE_S
    before = -1
    while (waiting := sum(map(_waiting, fds))) and moves < MAX_MOVES:
        if waiting != before:
            moves, pause_s, before = moves + 1, MIN_PAUSE_S, waiting
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)


def _waiting(fd: int) -> int:
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, _NOTHING), sys.byteorder)
    except OSError:
        return 0
