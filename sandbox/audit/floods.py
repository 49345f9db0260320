"""What strangers and untrusted code can bring about at will, kept from filling the log.

The oldest lines go when the log is full, so whoever can add lines without end can push out the
lines about what they did before. Of entries that are alike the first within a minute is written at
once, the others are counted, and the count follows when the minute is over.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from sandbox.audit.entries import DenialEntry, EgressEntry

WINDOW_S = 60.0
MAX_KINDS = 30
"""The entries of one source within a minute that are told apart."""
OTHERS = "(others)"
"""The host that stands for all that are not told apart."""

Repeatable = DenialEntry | EgressEntry


@dataclass(slots=True)
class _Source:
    ends_at: float
    last: dict[Hashable, Repeatable] = field(default_factory=dict[Hashable, Repeatable])
    more: dict[Hashable, int] = field(default_factory=dict[Hashable, int])


class Floods:
    """Counts what comes again."""

    def __init__(self, clock: Callable[[], float], write: Callable[[Repeatable], None]) -> None:
        self._clock = clock
        self._write = write
        self._sources: dict[str, _Source] = {}

    def take(self, entry: Repeatable) -> None:
        """Write an entry, or count it."""
        name = entry.session_id if isinstance(entry, EgressEntry) else ""
        now = self._clock()
        source = self._sources.get(name)
        if source is None or now >= source.ends_at:
            self._finish(name)
            source = self._sources[name] = _Source(now + WINDOW_S)
        key = _key(entry)
        if key not in source.last and len(source.last) >= MAX_KINDS:
            entry = _others(entry)
            key = _key(entry)
        elif key not in source.last:
            source.last[key] = entry
            self._write(entry)
            return
        source.last[key] = entry
        source.more[key] = source.more.get(key, 0) + 1

    def sum_up(self, *, at_once: bool = False) -> None:
        """Write the counts whose minute is over; ``at_once`` the others too."""
        now = self._clock()
        for name, source in tuple(self._sources.items()):
            if at_once or now >= source.ends_at:
                self._finish(name)

    def _finish(self, name: str) -> None:
        source = self._sources.pop(name, None)
        if source is not None:
            for key, count in source.more.items():
                self._write(replace(source.last[key], repeated=count))


def _key(entry: Repeatable) -> Hashable:
    if isinstance(entry, DenialEntry):
        return entry.reason
    return (entry.verdict, entry.host, entry.port, entry.rule)


def _others(entry: Repeatable) -> Repeatable:
    if isinstance(entry, DenialEntry):
        return entry
    reason = f"more than {MAX_KINDS} destinations within a minute"
    return replace(entry, host=OTHERS, port=0, rule="", reason=reason)
