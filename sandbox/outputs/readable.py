"""The richest text that a reader can read of a mime bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

_BARE = re.compile(r"<(?:[\w.]+ object(?: at 0x[0-9a-fA-F]+)?|Figure size [^<>\n]*)>")


def readable(data: Mapping[str, Any]) -> str:
    """The richest text that a reader can read of a mime bundle; empty when there is none."""
    words = _text(data.get("text/plain"))
    if words and not is_bare(words):
        return words
    for name in ("text/markdown", "text/latex"):
        if text := _text(data.get(name)):
            return text
    return words


def is_bare(text: str) -> bool:
    """Whether a text says no more of an object than its class."""
    return _BARE.fullmatch(text.strip()) is not None


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "".join(map(str, cast("list[Any]", value)))
    return value if isinstance(value, str) else ""
