"""Text of several lines as a terminal pastes it, so that a line editor takes it as it is written.

Typed, a tab in it would complete a word, and each line end would enter a line. In a bracketed paste
both are text: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
"""

from __future__ import annotations

import unicodedata

BEGIN, END = "\x1b[200~", "\x1b[201~"
_LAYOUT = "\t\r\n"


def is_pasted(text: str) -> bool:
    """Whether this is a piece of text rather than keys: it has lines or tabs, and no key's code."""
    inner = text.rstrip("\r\n")
    return (
        not text.isspace()
        and any(char in inner for char in _LAYOUT)
        and not any(unicodedata.category(char) == "Cc" and char not in _LAYOUT for char in text)
    )


def pasted(text: str) -> str:
    """A bracketed paste of a text that :func:`is_pasted`: it has no mark that could end it early.

    A line editor keeps what is pasted until enter is pressed, so line ends at its end are pressed.
    """
    lines = text.replace("\r\n", "\r").replace("\n", "\r")
    inner = lines.rstrip("\r")
    return BEGIN + inner + END + lines[len(inner) :]


def without_marks(text: str) -> str:
    """The text without what would begin or end a paste."""
    while BEGIN in text or END in text:  # what is left may be such a mark again
        text = text.replace(BEGIN, "").replace(END, "")
    return text
