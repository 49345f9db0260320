"""The screen of a terminal, drawn by pyte from bytes that nobody vouches for.

pyte keeps what well-behaved programs show; here are the bounds for the others: on its memory, on
the work that a few bytes can cause, and on what it would answer into the pty.
"""

from __future__ import annotations

import codecs
import copy
import time
import unicodedata
from typing import Any

import pyte

from sandbox.outputs.invisible import without_invisible
from sandbox.outputs.plain import plain

PIECE = 64
"""Characters between two looks at the clock."""
MAX_SEQUENCE = 4096
"""The longest escape sequence that is followed, in characters."""
MAX_SAVEPOINTS = 16
MAX_MARKS = 4
"""The most combining characters on one."""
MAX_ANSWER = 256
"""The most characters that are answered to the program at a time."""

_PRIVATE_SHIFT = 5
_APPLICATION_CURSOR = 1 << _PRIVATE_SHIFT
_BRACKETED_PASTE = 2004
_ALTERNATE = frozenset((47, 1047, 1049))
_IGNORED = frozenset((3, 5))
"""Private modes that resize or recolour the whole screen: costly, and of no use in plain text."""


class _Screen(pyte.Screen):
    """pyte's screen with an alternate one, and without what costs much."""

    def __init__(self, columns: int, lines: int) -> None:
        self.answer = ""
        """What the program is to be told."""
        self._main: tuple[dict[int, Any], Any] | None = None
        self.line_begun = self.line_taken = 0
        """How often a line editor has begun to read, and has taken what it had read."""
        self.has_answer = False
        """Whether anything was shown since a line was taken."""
        self.line_feeds = 0
        super().__init__(columns, lines)

    @property
    def is_alternate(self) -> bool:
        """Whether a program draws on a screen of its own."""
        return self._main is not None

    def reset(self) -> None:
        self._main = None
        super().reset()

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        if kwargs.get("private"):
            if _ALTERNATE & set(modes) and self._main is None:
                self._main = dict(self.buffer), copy.copy(self.cursor)
                self.buffer.clear()
            self.line_begun += _BRACKETED_PASTE in modes and not self.is_alternate
            modes = tuple(mode for mode in modes if mode not in _IGNORED)
        super().set_mode(*modes, **kwargs)

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        if kwargs.get("private"):
            if _ALTERNATE & set(modes) and self._main is not None:
                lines, self.cursor = self._main
                self._main = None
                self.buffer.clear()
                self.buffer.update(lines)
                self.ensure_hbounds()
                self.ensure_vbounds()
            if _BRACKETED_PASTE in modes:
                self.line_taken += 1
                self.has_answer = False
            modes = tuple(mode for mode in modes if mode not in _IGNORED)
        super().reset_mode(*modes, **kwargs)

    def draw(self, data: str) -> None:
        if not data.isascii():  # pyte draws nothing more after a character of no width
            data = _few_marks(without_invisible(data))
        self.has_answer = True
        super().draw(data)

    def linefeed(self) -> None:
        self.line_feeds += 1
        super().linefeed()

    def save_cursor(self) -> None:
        del self.savepoints[: -MAX_SAVEPOINTS + 1]
        super().save_cursor()

    def erase_in_display(self, how: int = 0, *args: Any, **kwargs: Any) -> None:
        gone = {
            0: range(self.cursor.y + 1, self.lines),
            1: range(self.cursor.y),
        }.get(how, range(self.lines))
        for y in gone:
            self.buffer.pop(y, None)
        if how in (0, 1):
            self.erase_in_line(how)

    def alignment_display(self) -> None:
        """A test picture for monitors; nobody needs it."""

    def set_title(self, param: str) -> None:
        """Titles are not shown."""

    def set_icon_name(self, param: str) -> None:
        """Nor are names of icons."""

    def write_process_input(self, data: str) -> None:
        """What pyte answers: where the cursor is, that all is well, and that it is a VT102."""
        if len(self.answer) + len(data) <= MAX_ANSWER:
            self.answer += data


class _Parser(pyte.Stream):
    """pyte's parser, which goes on after what it cannot understand."""

    def __init__(self, screen: _Screen) -> None:
        self._sequence_size = 0
        super().__init__(screen)

    def _send_to_parser(self, data: str) -> bool | None:
        self._sequence_size += 1
        if self._sequence_size > MAX_SEQUENCE:
            self._initialize_parser()
        try:
            plain_follows = super()._send_to_parser(data)
        except Exception:  # a sequence with wrong arguments raises anything; pyte starts over
            plain_follows = True
        if plain_follows:
            self._sequence_size = 0
        return plain_follows


class Display:
    """A screen of so many lines and characters, which bytes are written to."""

    def __init__(self, rows: int, cols: int) -> None:
        self._screen = _Screen(cols, rows)
        self._parser = _Parser(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._at = 0

    @property
    def is_drawn(self) -> bool:
        """Whether everything written has been drawn."""
        return self._at >= len(self._text)

    @property
    def application_cursor(self) -> bool:
        """Whether the program wants the other form of the cursor keys."""
        return _APPLICATION_CURSOR in self._screen.mode

    @property
    def takes_pastes(self) -> bool:
        """Whether a line editor waits that tells what is pasted from what is typed.

        On a screen of their own programs take keys: vim would not read a paste as its commands.
        """
        mode = _BRACKETED_PASTE << _PRIVATE_SHIFT
        return mode in self._screen.mode and not self._screen.is_alternate

    @property
    def line_begun(self) -> int:
        """How often a line editor has begun to read, as one that takes pastes tells."""
        return self._screen.line_begun

    @property
    def line_taken(self) -> int:
        """How often one has taken what it had read."""
        return self._screen.line_taken

    @property
    def has_answer(self) -> bool:
        """Whether anything was shown since a line was taken."""
        return self._screen.has_answer

    @property
    def line_feeds(self) -> int:
        """How many lines were ended."""
        return self._screen.line_feeds

    @property
    def before_cursor(self) -> str:
        """What stands before the cursor in its line, as a prompt does."""
        screen = self._screen
        if screen.cursor.y not in screen.buffer:
            return ""
        line = screen.buffer[screen.cursor.y]
        return plain("".join(line[x].data for x in range(min(screen.cursor.x, screen.columns))))

    @property
    def cursor(self) -> tuple[int, int]:
        """Row and column of the cursor, counted from 1."""
        column = min(self._screen.cursor.x, self._screen.columns - 1)
        return self._screen.cursor.y + 1, column + 1

    def write(self, data: bytes) -> None:
        """Take bytes; :meth:`draw` draws them."""
        self._text = self._text[self._at :] + self._decoder.decode(data)
        self._at = 0

    def draw(self, budget_s: float) -> None:
        """Draw what was written, for about ``budget_s`` seconds at most."""
        until = time.monotonic() + budget_s
        while not self.is_drawn:
            piece = self._text[self._at : self._at + PIECE]
            self._at += len(piece)
            self._parser.feed(piece)
            if time.monotonic() > until:
                return

    def take_answer(self) -> str:
        """What the program has asked to be told since the last call."""
        answer, self._screen.answer = self._screen.answer, ""
        return answer

    def resize(self, rows: int, cols: int) -> None:
        """Change the size."""
        self._screen.resize(rows, cols)

    def lines(self) -> list[str]:
        """The lines as they look, without spaces at their ends."""
        screen = self._screen
        return [
            plain("".join(screen.buffer[y][x].data for x in range(screen.columns))).rstrip()
            if y in screen.buffer
            else ""
            for y in range(screen.lines)
        ]


def _few_marks(text: str) -> str:
    """The text without more combining characters in a row than any script needs.

    pyte normalises a character anew with each mark on it, in quadratic time.
    """
    kept: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks <= MAX_MARKS:
            kept.append(char)
    return "".join(kept)
