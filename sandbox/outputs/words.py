"""A value as a few words of one line."""

from __future__ import annotations

from typing import Any

from sandbox.outputs.plain import plain

MAX_WORDS = 200
"""Characters."""


def words(value: Any, limit: int = MAX_WORDS) -> str:
    """A text as one plain line of at most so many characters; empty of anything but a text."""
    if not isinstance(value, str):
        return ""
    line = " ".join(plain(value[: limit * 4]).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
