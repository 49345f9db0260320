"""A numbered log of bounded size, which any number of readers follow, each at its own pace.

What is appended takes positions: a message one, a piece of bytes as many as it has. Reading takes
nothing away from anybody. A log that has too much forgets its oldest, and a reader that had not
come so far is told how many positions it missed; it slows nobody down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Entry = TypeVar("Entry")

MAX_ENTRIES = 10_000
READ_ENTRIES = 256


@dataclass(frozen=True, slots=True)
class Read(Generic[Entry]):
    """What a reader got at once."""

    entries: tuple[Entry, ...]
    position: int
    """Where the next read goes on."""
    missed: int = 0
    """Positions before these entries that the log had forgotten already."""


class Budget:
    """A bound that several logs keep together: the largest forgets first, down to nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._logs: WeakSet[EventLog[Any]] = WeakSet()

    def add(self, log: EventLog[Any]) -> None:
        """Count a log, for as long as somebody has it."""
        self._logs.add(log)

    def keep(self) -> None:
        """Let logs forget until all of them together are within the bound."""
        while sum(log.size_bytes for log in self._logs) > self._max_bytes:
            max(self._logs, key=lambda log: log.size_bytes).forget()


class EventLog(Generic[Entry]):
    """A log; use :meth:`bytes_log` for one of bytes.

    Args:
        max_bytes: What is kept at most; the newest entry stays whatever its size, unless the
            budget is too small for it.
        size: The size of an entry in memory, in bytes.
        start: The position before the first entry, for a log that goes on from an earlier one.
        width: The positions that an entry takes; at least one.
        cut: An entry without its first positions.
        join: The last entry and a new one as one, None where they stay two.
        budget: What it keeps together with other logs.
    """

    def __init__(
        self,
        max_bytes: int,
        size: Callable[[Entry], int],
        *,
        start: int = 0,
        max_entries: int = MAX_ENTRIES,
        width: Callable[[Entry], int] = lambda _: 1,
        cut: Callable[[Entry, int], Entry] = lambda entry, _: entry,
        join: Callable[[Entry, Entry], Entry | None] = lambda _last, _entry: None,
        budget: Budget | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._size_of, self._width, self._cut = size, width, cut
        self._join = join
        self._budget = budget
        self._entries: deque[tuple[int, int, Entry]] = deque()
        """Each with its first position and the one behind it."""
        self.size_bytes = 0
        """What is kept."""
        self.first = self.end = start
        """The oldest position that can still be read, and the one behind the newest entry."""
        self.is_over = False
        """Whether nothing more comes."""
        self._news = asyncio.Event()
        if budget is not None:
            budget.add(self)

    @classmethod
    def bytes_log(cls, max_bytes: int, *, piece_bytes: int = 0) -> EventLog[bytes]:
        """A log of bytes, in which a position is an offset; pieces are joined up to
        ``piece_bytes``, which is far below the bound."""

        def join(last: bytes, data: bytes) -> bytes | None:
            return last + data if len(last) + len(data) <= piece_bytes else None

        return EventLog(max_bytes, len, width=len, cut=lambda data, n: data[n:], join=join)

    def append(self, entry: Entry, end: int | None = None) -> None:
        """Add an entry at the end, and forget the oldest ones for it if need be.

        Args:
            end: The position behind it, where entries are numbered elsewhere and numbers may be
                left out; it takes those before it, too.
        """
        start = self.end
        self.end = start + self._width(entry) if end is None else end
        self.size_bytes += self._size_of(entry)
        if self._entries and (joined := self._join(self._entries[-1][2], entry)) is not None:
            start, _, last = self._entries.pop()
            self.size_bytes += self._size_of(joined) - self._size_of(last) - self._size_of(entry)
            entry = joined
        self._entries.append((start, self.end, entry))
        while len(self._entries) > 1 and (
            self.size_bytes > self._max_bytes or len(self._entries) > self._max_entries
        ):
            self.forget()
        if self._budget is not None:
            self._budget.keep()
        self.wake()

    def skip(self, positions: int) -> None:
        """Say that so many positions were lost before they got here; what came before goes too."""
        while self._entries:
            self.forget()
        self.end += positions
        self.first = self.end
        self.wake()

    def forget(self) -> None:
        """Let the oldest entry go."""
        _, self.first, entry = self._entries.popleft()
        self.size_bytes -= self._size_of(entry)

    def finish(self) -> None:
        """Say that nothing more comes."""
        self.is_over = True
        self.wake()

    def wake(self) -> None:
        """Let those look again who wait for :meth:`changed`."""
        self._news.set()
        self._news = asyncio.Event()

    def read(self, position: int, max_entries: int = READ_ENTRIES) -> Read[Entry]:
        """What there is from a position on, or from the nearest that ever was; nothing is waited
        for."""
        position = max(0, min(position, self.end))
        start = max(position, self.first)
        behind: list[tuple[int, int, Entry]] = []
        for kept in reversed(self._entries):  # a reader is most often near the end
            if kept[1] <= start:
                break
            behind.append(kept)
        found: list[Entry] = []
        for at, end, entry in islice(reversed(behind), max_entries):
            found.append(self._cut(entry, start - at) if at < start else entry)
            start = end
        missed = max(0, self.first - position)
        return Read(tuple(found), start, missed)

    async def changed(self) -> None:
        """Wait for the next entry, the end, or :meth:`wake`."""
        await self._news.wait()

    async def wait(self, position: int, timeout_s: float | None = None) -> bool:
        """Wait until there is something from a position on, or the log is over.

        Returns:
            Whether there is; False when the time was up first, or nothing can come.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while position >= self.end and not self.is_over:
                    await self.changed()
        except TimeoutError:
            return False
        return position < self.end

    async def follow(self, position: int = 0) -> AsyncGenerator[Read[Entry]]:
        """All from a position on, as it comes, until the log is over."""
        while await self.wait(position):
            got = self.read(position)
            position = got.position
            yield got
