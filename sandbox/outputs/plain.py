"""Text of a program made plain: no escape sequences, no control characters, lines as last seen.

What a program writes for a terminal carries colours, titles and cursor movements, and draws
progress bars by going back over what it wrote. :class:`PlainText` turns such a text, piece by
piece, into what a reader would have seen in the end; ``sandbox.outputs.lastlines`` says how far
back a cursor goes. What is in the text but cannot be seen is shown as an escape, unless the script
needs it there (``sandbox.outputs.invisible``).

The text is hostile: the work is linear in its length, however small the pieces are in which it
comes, and the memory between pieces is bounded.
The sequences are those of ECMA-48 (https://ecma-international.org/publications-and-standards/standards/ecma-48/).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sandbox.outputs.invisible import visible
from sandbox.outputs.lastlines import MOVES, LastLines

MAX_SEQUENCE = 4096
"""The longest escape sequence that is waited for, in characters."""
MAX_LINE = 16 * 1024
"""The characters of the last lines that can still be written over."""
CUT_LINE_BYTES = 48
"""The longest line that says what was cut."""

_DROPPED = re.compile(
    rf"""
    (?! {MOVES} ) \x1b (?:
        \[ [0-?]* [ -/]* [@-~]?                                          # colours and others
      | [\]PX^_] [^\x00-\x1f]{{0,{MAX_SEQUENCE}}} (?:\x07|\x1b\\)?  # titles, links, devices
      | [ -/]* [0-~]?                                                   # the short ones
    )
    """,
    re.VERBOSE,
)
_UNFINISHED = re.compile(
    rf"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x00-\x1f]{{0,{MAX_SEQUENCE}}}|[ -/]*)?"
)

_CONTROL_BYTES = bytes(n for n in (*range(0x20), 0x7F) if n not in b"\n\t")
_C1 = re.compile("[\x80-\x9f]")
_CONTROLS = re.compile("[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")
"""Without those that lines are drawn with: backspace, tab, line end, return and escape."""


def encodable(text: str) -> str:
    """The text with every lone surrogate, which UTF-8 has no bytes for, replaced by ``?``."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def escaped(text: str, *, kept: str = "") -> str:
    """The text with an escape for each character that cannot be printed, but for those kept."""
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode()
        for char in text
    )


def plain(text: str) -> str:
    """A whole text made plain."""
    editor = PlainText()
    return editor.feed(text) + editor.finish()


def clip(text: str, limit_bytes: int) -> str:
    """A text, or, when its UTF-8 is longer than ``limit_bytes``, its head and tail.

    A line between them says how many bytes were cut; it comes on top of the limit, so that what
    was clipped once stays as it is.
    """
    return cut(text, limit_bytes)[0]


def cut(
    text: str, limit_bytes: int, made: Callable[[str], str] = lambda text: text
) -> tuple[str, int]:
    """The same of what is made of a text, and how many bytes were cut.

    Of a text that is too long no more than what may be kept is given to ``made``.
    """
    size = utf8_size(text)
    if size <= limit_bytes + CUT_LINE_BYTES:
        text = made(text)
        size = utf8_size(text)
        if size <= limit_bytes + CUT_LINE_BYTES:
            return encodable(text), 0
        made = encodable
    half, middle = limit_bytes // 2, len(text) // 2
    first, last = text[: min(half, middle)], text[max(middle, len(text) - half) :]
    head = made(first).encode("utf-8", "replace")[:half].decode("utf-8", "ignore")
    end = made(last).encode("utf-8", "replace")
    tail = end[max(0, len(end) - half) :].decode("utf-8", "ignore")
    missing = size - utf8_size(head) - utf8_size(tail)
    return f"{head}\n[… {missing:,} bytes cut …]\n{tail}", missing


def utf8_size(text: str) -> int:
    """The bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def is_plain(text: str) -> bool:
    """Whether a text has no control character but line ends and tabs, and can be encoded."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    if len(data.translate(None, _CONTROL_BYTES)) != len(data):
        return False
    return text.isascii() or b"\xc2" not in data or _C1.search(text) is None


class PlainText:
    """Makes a text plain that comes in pieces; its last lines are held back, up to ``max_line``
    characters, because what comes may write over them."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._lines = LastLines(max_line)
        self._sequence: str = ""
        """An escape sequence whose end has not come yet."""

    @property
    def line(self) -> str:
        """The last lines as they look; what comes may still change them."""
        return visible(self._lines.text)

    @property
    def size(self) -> int:
        """The characters that are held back."""
        return self._lines.size

    @property
    def is_settled(self) -> bool:
        """Whether ``line`` says all there is to know of the text so far, but for the place of the
        cursor."""
        return not self._sequence

    def feed(self, text: str) -> str:
        """Take a piece and return the text that nothing can change any more."""
        if self._sequence or not is_plain(text):
            text = self._without_sequences(text)
        self._lines.write(text)
        return visible(self._lines.done())

    def flush(self) -> str:
        """Return the last lines; nothing that comes later changes them."""
        return visible(self._lines.flush())

    def finish(self) -> str:
        """Return the last lines; what comes later begins a new text."""
        self._sequence = ""
        return self.flush()

    def _without_sequences(self, text: str) -> str:
        """A piece without sequences and control characters but those that lines are drawn with."""
        text = self._sequence + _C1.sub(_as_escape, encodable(text))
        self._sequence = ""
        start = text.rfind("\x1b", -MAX_SEQUENCE)
        if start >= 0 and _UNFINISHED.fullmatch(text, start):
            text, self._sequence = text[:start], text[start:]
        if "\x1b" in text:
            text = _DROPPED.sub("", text)
        return _CONTROLS.sub("", text).replace("\r\n", "\n")


def _as_escape(match: re.Match[str]) -> str:
    """The form with an escape character of a control that one character can stand for."""
    return f"\x1b{chr(ord(match[0]) - 0x40)}"
