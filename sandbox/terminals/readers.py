"""Who reads a terminal, where each of them is, and the plain text of what is new to them."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from sandbox.outputs.eventlog import MAX_ENTRIES, EventLog
from sandbox.outputs.plain import MAX_SEQUENCE, PlainText

MAX_READERS = 64
"""The places that a terminal remembers; of more readers the one that was away longest begins
anew."""
NEW_TEXT_BYTES = 64 * 1024
"""The most that one read tells; of more the oldest is left out."""


@dataclass(slots=True)
class Reader:
    """One reader's place in a terminal."""

    position: int = 0
    denials: int = 0
    """The mark in the session's denials up to which it was told."""
    read_at: float = 0.0
    """Of the monotonic clock; 0 when it has not read yet."""


class Readers:
    """The places of those who read one terminal, by whatever tells them apart."""

    def __init__(self, denials: int) -> None:
        self._denials = denials
        self._readers: dict[str, Reader] = {}

    def get(self, key: str) -> Reader:
        """The place of a reader; the oldest there is for one that has not read yet."""
        reader = self._readers.pop(key, None) or Reader(denials=self._denials)
        self._readers[key] = reader
        if len(self._readers) > MAX_READERS:
            del self._readers[next(iter(self._readers))]
        return reader

    def pass_on(self, key: str, to: str) -> None:
        """Give a reader's place to another one, who goes on for it."""
        if (reader := self._readers.pop(key, None)) is not None:
            self._readers[to] = reader


@dataclass(frozen=True, slots=True)
class NewText:
    """What came after a position."""

    text: str
    position: int
    dropped: int
    """The bytes after it that are not in the text."""


def new_text(log: EventLog[bytes], position: int) -> NewText:
    """What came after a position, as plain text.

    Before it may stand the beginning of a character or of an escape sequence, so what came there is
    gone through again, as far as one can reach, and left out.
    """
    position = min(position, log.end)
    start = max(position, log.first, log.end - NEW_TEXT_BYTES)
    before = max(log.first, start - MAX_SEQUENCE)
    data = b"".join(log.read(before, MAX_ENTRIES).entries)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    plain = PlainText()
    plain.feed(decoder.decode(data[: start - before]))
    plain.flush()
    text = plain.feed(decoder.decode(data[start - before :]))
    return NewText(text + plain.flush(), log.end, start - position)
