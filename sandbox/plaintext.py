"""Text of a program made plain: no escape sequences, no control characters, lines as last seen.

What a program writes for a terminal carries colours, titles and cursor movements, and draws
progress bars by returning to the start of a line. :class:`PlainText` turns such a text, piece by
piece, into what a reader would have seen in the end. Cursor movements over several lines are not
followed; they are dropped.

The text is hostile: the work is linear in its length and the memory between pieces is bounded.
The sequences are those of ECMA-48 (https://ecma-international.org/publications-and-standards/standards/ecma-48/).
"""

from __future__ import annotations

import re

MAX_SEQUENCE = 4096
"""The longest escape sequence that is waited for, in characters."""
MAX_LINE = 16 * 1024
"""The longest unfinished line that can still be overwritten, in characters."""
CUT_LINE_BYTES = 48
"""The longest line that says what was cut."""

_SEQUENCE = re.compile(
    rf"""
    \x1b (?:
        \[ [0-?]* [ -/]* [@-~]?                                          # colours, cursor
      | [\]PX^_] [^\x00-\x1f]{{0,{MAX_SEQUENCE}}} (?:\x07|\x1b\\)?  # titles, links, devices
      | [ -/]* [0-~]?                                                   # the short ones
    )
    """,
    re.VERBOSE,
)
_UNFINISHED = re.compile(
    rf"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x00-\x1f]{{0,{MAX_SEQUENCE}}}|[ -/]*)?"
)
_ERASE_LINE = re.compile(r"\x1b\[2K|\r\x1b\[0?K")
_ERASED = "\x00"

_CONTROL_BYTES = bytes(n for n in (*range(0x20), 0x7F) if n not in b"\n\t")
_C1 = re.compile("[\x80-\x9f]")
_CONTROLS = re.compile("[\x01-\x07\x0b\x0c\x0e-\x1f\x7f]")
"""Without those that lines are drawn with: the erasure, backspace, tab, line end and return."""


def encodable(text: str) -> str:
    """The text with every lone surrogate, which UTF-8 has no bytes for, replaced by ``?``."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def plain(text: str) -> str:
    """A whole text made plain."""
    editor = PlainText()
    return editor.feed(text) + editor.finish()


def clip(text: str, limit_bytes: int) -> str:
    """A text, or, when its UTF-8 is longer than ``limit_bytes``, its head and tail.

    A line between them says how many bytes were cut; it comes on top of the limit, so that what
    was clipped once stays as it is.
    """
    data = text.encode("utf-8", "replace")
    if len(data) <= limit_bytes + CUT_LINE_BYTES:
        return encodable(text)
    half = limit_bytes // 2
    head = data[:half].decode("utf-8", "ignore")
    tail = data[len(data) - half :].decode("utf-8", "ignore")
    return f"{head}\n[… {len(data) - 2 * half:,} bytes cut …]\n{tail}"


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
    """Makes a text plain that comes in pieces.

    Args:
        max_line: The longest unfinished line, in characters, that is held back because what
            comes may overwrite it.
    """

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._line: str = ""
        """The unfinished line; once returned to its start, a ``\\r`` and what overwrites it."""
        self._sequence: str = ""
        """An escape sequence whose end has not come yet."""

    @property
    def line(self) -> str:
        """The unfinished line as it looks; what comes may still change it."""
        return _overwritten(self._line)

    @property
    def is_settled(self) -> bool:
        """Whether ``line`` says all there is to know of the text so far."""
        return "\r" not in self._line and not self._sequence

    def feed(self, text: str) -> str:
        """Take a piece and return the text that nothing can change any more."""
        if self.is_settled and is_plain(text):
            return self._take(self._line + text if self._line else text)
        text = self._sequence + _C1.sub(_as_escape, encodable(text).replace(_ERASED, ""))
        self._sequence = ""
        start = text.rfind("\x1b", -MAX_SEQUENCE)
        if start >= 0 and _UNFINISHED.fullmatch(text, start):
            text, self._sequence = text[:start], text[start:]
        text = self._line + text
        if "\x1b" in text:
            text = _SEQUENCE.sub("", _ERASE_LINE.sub(_ERASED, text))
        text = _CONTROLS.sub("", text.replace("\r\n", "\n"))
        done, end, last = text.rpartition("\n")
        if "\r" in done or "\b" in done or _ERASED in done:
            done = "\n".join(map(_overwritten, done.split("\n")))
        return self._take(done + end + _layers(last))

    def flush(self) -> str:
        """Return the unfinished line; nothing that comes later changes it."""
        line, self._line = self.line, ""
        return line

    def finish(self) -> str:
        """Return the unfinished line; what comes later begins a new text."""
        self._sequence = ""
        return self.flush()

    def _take(self, text: str) -> str:
        start = text.rfind("\n") + 1
        if len(text) - start > self._max_line:
            text = text[:start] + _overwritten(text[start:])
            start = len(text)
        self._line = text[start:]
        return text[:start]


def _as_escape(match: re.Match[str]) -> str:
    """The form with an escape character of a control that one character can stand for."""
    return f"\x1b{chr(ord(match[0]) - 0x40)}"


def _layers(line: str) -> str:
    """A line that goes on: as it looks, and what is being written over it, if anything is."""
    shown = _overwritten(line)
    top = _backspaced(line[line.rfind(_ERASED) + 1 :]).rpartition("\r")[2]
    return shown if len(top) == len(shown) else f"{shown}\r{top}"


def _overwritten(line: str) -> str:
    """A line as it looks after its carriage returns, backspaces and erasures."""
    line = line[line.rfind(_ERASED) + 1 :]
    if "\b" in line:
        line = _backspaced(line)
    if "\r" not in line:
        return line
    seen: list[str] = []
    width = 0
    for layer in reversed(line.split("\r")):  # the last one lies on top
        if len(layer) > width:
            seen.append(layer[width:])
            width = len(layer)
    return "".join(seen)


def _backspaced(line: str) -> str:
    kept: list[str] = []
    for char in line:
        if char != "\b":
            kept.append(char)
        elif kept and kept[-1] != "\r":
            kept.pop()
    return "".join(kept)
