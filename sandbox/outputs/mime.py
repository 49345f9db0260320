"""The mime types that are kept of rich outputs, and what makes their values safe to hand on.

Values come from a hostile kernel. Markup and scripts are kept as text: nobody renders them in an
origin of the controller. JSON is kept as its text, too, for its values take up to a hundred times
the memory; it is parsed when it is shown.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from sandbox.outputs.invisible import visible
from sandbox.outputs.plain import encodable, plain, utf8_size

CUT = frozenset(("text/plain", "text/markdown", "text/latex", "text/html"))
"""The types whose values say something even where their middle is missing."""
_JSON = re.compile(
    r"application/(json|geo\+json|vnd\.(vegalite|vega|plotly)\.v\d{1,3}\+json"
    r"|vnd\.jupyter\.widget-view\+json)"
)
_SPACES = str.maketrans("", "", " \t\n\r\v\f")
_CONTROLS = {n: None for n in (*range(0x20), *range(0x7F, 0xA0)) if n not in (0x09, 0x0A, 0x0D)}


def read(name: str, raw: Any) -> str | None:
    """The value of a mime type made safe, as it is kept; None when it is not acceptable."""
    reader = _json if is_json(name) else _READERS.get(name)
    return None if reader is None else reader(raw)


def shown(name: str, kept: str) -> Any:
    """What nbformat has as the value of a mime type, of what is kept of it."""
    return json.loads(kept) if is_json(name) else kept


def is_json(name: str) -> bool:
    """Whether a type's values are JSON, and not a text."""
    return _JSON.fullmatch(name) is not None


def is_known(name: str) -> bool:
    """Whether a type is one of those that are kept."""
    return name in _READERS or is_json(name)


def is_image(name: str) -> bool:
    """Whether a type counts as an image, as PDF does: its value is base64."""
    return _READERS.get(name) is _base64


def size(value: Any) -> int:
    """The bytes of a value in UTF-8, or of its JSON when it is not a text."""
    if not isinstance(value, str):
        try:
            value = _encoder.encode(value)
        except (ValueError, RecursionError):
            return 0
    return utf8_size(value)


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


def joined(raw: Any) -> str | None:
    """A text; nbformat also allows it to be a list of lines. None for anything else."""
    if isinstance(raw, list):
        lines = cast("list[Any]", raw)
        return "".join(lines) if all(isinstance(line, str) for line in lines) else None
    return raw if isinstance(raw, str) else None


def _plain(raw: Any) -> str | None:
    text = joined(raw)
    return None if text is None else plain(text)


def _source(raw: Any) -> str | None:
    text = joined(raw)
    return None if text is None else encodable(text).translate(_CONTROLS)


def _read_markup(raw: Any) -> str | None:
    """Of a language that is read as it is by whoever gets no rendering of it."""
    text = _source(raw)
    return None if text is None else visible(text)


def _base64(raw: Any) -> str | None:
    text = joined(raw)
    if text is None or not text.isascii():
        return None
    text = text.translate(_SPACES)
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
    return text


def _json(raw: Any) -> str | None:
    try:
        return encodable(_strict_encoder.encode(raw))
    except (ValueError, RecursionError):
        return None


# Made once: json.dumps makes a new one for every call that is not plain.
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_strict_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

_READERS: Mapping[str, Callable[[Any], str | None]] = {
    "text/plain": _plain,
    "text/html": _source,
    "text/markdown": _read_markup,
    "text/latex": _read_markup,
    "image/png": _base64,
    "image/jpeg": _base64,
    "image/gif": _base64,
    "image/webp": _base64,
    "image/svg+xml": _source,
    "application/pdf": _base64,
    "application/javascript": _source,
}
