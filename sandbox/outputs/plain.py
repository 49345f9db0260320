"""Text of a program made plain: no escape sequences, no control characters, lines as last seen.

What a program writes for a terminal carries colours, titles and cursor movements, and draws
progress bars by returning to the start of a line. :class:`PlainText` turns such a text, piece by
piece, into what a reader would have seen in the end. Cursor movements over several lines are not
followed; they are dropped. What is in the text but cannot be seen is shown as an escape, unless
the script needs it there (``sandbox.outputs.invisible``).

The text is hostile: the work is linear in its length, however small the pieces are in which it
comes, and the memory between pieces is bounded.
The sequences are those of ECMA-48 (https://ecma-international.org/publications-and-standards/standards/ecma-48/).
"""

from __future__ import annotations

import re

from sandbox.outputs.invisible import visible

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
_ERASE = re.compile(r"\x1b\[([02]?)K")
_ERASED = "\x00"
"""Stands for the sequence that erases the line."""
_CLEARED = "\x01"
"""Stands for the one that erases the rest of the line."""

_CONTROL_BYTES = bytes(n for n in (*range(0x20), 0x7F) if n not in b"\n\t")
_C1 = re.compile("[\x80-\x9f]")
_CONTROLS = re.compile("[\x02-\x07\x0b\x0c\x0e-\x1f\x7f]")
"""Without those that lines are drawn with: erasures, backspace, tab, line end and return."""


_DRAWING = ("\r", "\b", _ERASED, _CLEARED)


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
    """Makes a text plain that comes in pieces; an unfinished line is held back up to ``max_line``
    characters, because what comes may overwrite it."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._below: str = ""
        """What the unfinished line had shown before it was returned to its start."""
        self._line: str = ""
        """What was written to it since; it covers what is below."""
        self._sequence: str = ""
        """An escape sequence whose end has not come yet."""

    @property
    def line(self) -> str:
        """The unfinished line as it looks; what comes may still change it."""
        return visible(self._raw_line)

    @property
    def is_settled(self) -> bool:
        """Whether ``line`` says all there is to know of the text so far."""
        return self._is_simple and visible(self._line) == self._line

    def feed(self, text: str) -> str:
        """Take a piece and return the text that nothing can change any more."""
        if not (self._is_simple and is_plain(text)):
            text = self._without_sequences(text)
        done, end, last = text.rpartition("\n")
        if end:
            first, more, rest = done.partition("\n")
            self._write(first)
            if any(mark in rest for mark in _DRAWING):
                rest = "\n".join(map(_overwritten, rest.split("\n")))
            done = f"{self._raw_line}{more}{rest}\n"
            self._below = self._line = ""
        self._write(last)
        if max(len(self._below), len(self._line)) > self._max_line:
            done += self._raw_line
            self._below = self._line = ""
        return visible(done)

    def flush(self) -> str:
        """Return the unfinished line; nothing that comes later changes it."""
        line = self.line
        self._below = self._line = ""
        return line

    def finish(self) -> str:
        """Return the unfinished line; what comes later begins a new text."""
        self._sequence = ""
        return self.flush()

    @property
    def _is_simple(self) -> bool:
        return len(self._line) >= len(self._below) and not self._sequence

    @property
    def _raw_line(self) -> str:
        return self._line + self._below[len(self._line) :]

    def _without_sequences(self, text: str) -> str:
        """A piece without sequences and control characters but those that lines are drawn with."""
        text = self._sequence + _C1.sub(
            _as_escape, encodable(text).replace(_ERASED, "").replace(_CLEARED, "")
        )
        self._sequence = ""
        start = text.rfind("\x1b", -MAX_SEQUENCE)
        if start >= 0 and _UNFINISHED.fullmatch(text, start):
            text, self._sequence = text[:start], text[start:]
        if "\x1b" in text:
            text = _SEQUENCE.sub("", _ERASE.sub(_as_mark, text))
        return _CONTROLS.sub("", text.replace("\r\n", "\n"))

    def _write(self, text: str) -> None:
        """Write to the unfinished line what has no line end in it."""
        if _ERASED in text:
            text = text[text.rindex(_ERASED) + 1 :]
            self._below = self._line = ""
        first, *layers = text.split("\r")
        if _CLEARED in first:
            first, self._below = first.replace(_CLEARED, ""), ""
        self._line = _backspaced(first, self._line) if "\b" in first else self._line + first
        if layers:
            *below, top = layers
            if _CLEARED in top:
                top, self._below = top.replace(_CLEARED, ""), ""
            else:
                self._below = _overlaid([self._below, self._line, *below])
            self._line = _backspaced(top) if "\b" in top else top


def _as_mark(match: re.Match[str]) -> str:
    return _ERASED if match[1] == "2" else _CLEARED


def _as_escape(match: re.Match[str]) -> str:
    """The form with an escape character of a control that one character can stand for."""
    return f"\x1b{chr(ord(match[0]) - 0x40)}"


def _overwritten(line: str) -> str:
    """A whole line as it looks after its carriage returns, backspaces and erasures."""
    return _overlaid(line[line.rfind(_ERASED) + 1 :].split("\r"))


def _overlaid(layers: list[str]) -> str:
    """What is seen of texts that were written over each other, the last one on top."""
    seen: list[str] = []
    width = 0
    for layer in reversed(layers):
        if hides := _CLEARED in layer:
            layer = layer.replace(_CLEARED, "")
        if "\b" in layer:
            layer = _backspaced(layer)
        if len(layer) > width:
            seen.append(layer[width:])
            width = len(layer)
        if hides:
            break
    return "".join(seen)


def _backspaced(text: str, before: str = "") -> str:
    """A text that is written after another, of which its backspaces may take away the end."""
    kept: list[str] = []
    left = len(before)
    for char in text:
        if char != "\b":
            kept.append(char)
        elif kept:
            kept.pop()
        elif left:
            left -= 1
    return before[:left] + "".join(kept)
