"""The mime types that are kept of rich outputs, and what makes their values safe to hand on.

Values come from a hostile kernel. Markup and scripts are kept as text: nobody renders them in an
origin of the controller.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from sandbox.plaintext import encodable, plain

_CONTROLS = {n: None for n in (*range(0x20), *range(0x7F, 0xA0)) if n not in (0x09, 0x0A, 0x0D)}


def read(name: str, raw: Any) -> Any | None:
    """The value of a mime type made safe; None when the type or the value is not acceptable."""
    reader = _READERS.get(name)
    return None if reader is None else reader(raw)


def is_known(name: str) -> bool:
    """Whether a type is one of those that are kept."""
    return name in _READERS


def is_image(name: str) -> bool:
    """Whether a type counts as an image: its value is base64."""
    return _READERS.get(name) is _base64


def size(value: Any) -> int:
    """The bytes of a value in UTF-8, or of its JSON when it is not a text."""
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except (ValueError, RecursionError):
            return 0
    return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))


def shape(metadata: Any) -> dict[str, int]:
    """The ``width`` and ``height`` that an image's metadata states, in pixels."""
    if not isinstance(metadata, dict):
        return {}
    found = cast("dict[str, Any]", metadata)
    return {
        key: number
        for key in ("width", "height")
        if type(number := found.get(key)) is int and 0 < number < 100_000
    }


def _joined(raw: Any) -> str | None:
    """A text; nbformat also allows it to be a list of lines."""
    if isinstance(raw, list):
        lines = cast("list[Any]", raw)
        return "".join(lines) if all(isinstance(line, str) for line in lines) else None
    return raw if isinstance(raw, str) else None


def _plain(raw: Any) -> str | None:
    text = _joined(raw)
    return None if text is None else plain(text)


def _source(raw: Any) -> str | None:
    text = _joined(raw)
    return None if text is None else encodable(text).translate(_CONTROLS)


def _base64(raw: Any) -> str | None:
    text = _joined(raw)
    if text is None:
        return None
    text = "".join(text.split())
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
    return text


def _json(raw: Any) -> Any | None:
    try:
        text = json.dumps(raw, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return raw if text.isascii() else json.loads(text.encode("utf-8", "replace"))


_READERS: Mapping[str, Callable[[Any], Any | None]] = {
    "text/plain": _plain,
    "text/html": _source,
    "text/markdown": _source,
    "text/latex": _source,
    "image/png": _base64,
    "image/jpeg": _base64,
    "image/svg+xml": _source,
    "application/json": _json,
    "application/javascript": _source,
}
