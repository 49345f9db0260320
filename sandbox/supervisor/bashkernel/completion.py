"""Which words can stand at the cursor, asked of the shell itself."""

from __future__ import annotations

import re
import shlex
from typing import TypedDict

MAX_MATCHES = 500
_WORD = re.compile(r"[^\s;|&()<>=\"'`]*\Z")
_BEFORE_COMMAND = re.compile(r"(?:\A|[\n;|&({`]|\b(?:then|do|else|sudo|exec|time))\s*\Z")
"""After these a command's name begins."""


class Completed(TypedDict):
    """What completion answers."""

    matches: list[str]
    cursor_start: int
    cursor_end: int


def asking(code: str, cursor: int) -> str:
    """The cell that prints what can stand at the cursor, a word on each line."""
    word = _word(code[:cursor])
    if word.startswith("$"):
        name = word.lstrip("${")
        return f"builtin compgen -A variable -P {shlex.quote(word[: -len(name) or None])} -- " + (
            shlex.quote(name)
        )
    quoted = shlex.quote(word)
    found = f"builtin compgen -d -S / -- {quoted}; builtin compgen -f -- {quoted}"
    if word and _BEFORE_COMMAND.search(code[: cursor - len(word)]):
        return f"builtin compgen -A function -abck -- {quoted}; {found}"
    return found


def completed(printed: str, code: str, cursor: int) -> Completed:
    """What is answered once that cell has printed."""
    word = _word(code[:cursor])
    found = {line for line in printed.splitlines() if line.startswith(word)}
    words = sorted(each for each in found if f"{each}/" not in found)
    return Completed(
        matches=words[:MAX_MATCHES], cursor_start=cursor - len(word), cursor_end=cursor
    )


def _word(before: str) -> str:
    found = _WORD.search(before)
    return found[0] if found else ""
