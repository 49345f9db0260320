"""One of a command's outputs: searched for secrets before anything is kept or shown."""

from __future__ import annotations

from sandbox.bulkheads.overruns import Overruns
from sandbox.errors import TooMuchWork
from sandbox.outputs.headtail import HeadTail
from sandbox.outputs.redaction import Pieces, Redactor


class Output:
    """The head and the tail of the bytes that a command writes to one output."""

    def __init__(self, limit_bytes: int, redactor: Redactor, overruns: Overruns) -> None:
        self._limit = limit_bytes
        self._redactor = redactor
        self._overruns = overruns
        self._pieces = Pieces(redactor)
        self.kept = HeadTail(limit_bytes)

    def feed(self, data: bytes) -> bytes | None:
        """Take a piece and return what of it can be shown; None when it is set aside."""
        try:
            with self._overruns.section("a command's output"):
                shown = self._pieces.feed(data)
                self.kept.add(shown)
                return shown
        except TooMuchWork as exc:  # and what was kept may be half of something
            self._overruns.note(exc, data)
            lost = self.kept.cut_bytes + self.kept.size + len(data)
            self._pieces, self.kept = Pieces(self._redactor), HeadTail(self._limit)
            self.kept.lose(lost)
            return None

    def last(self) -> bytes:
        """What was held back, now that nothing more comes."""
        shown = self._pieces.last()
        self.kept.add(shown)
        return shown
