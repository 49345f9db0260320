"""The richest text that a reader can read of a mime bundle.

What an object says of itself in plain text is what a person at a prompt reads, so it stands, with
no markup beside it that says the same. It gives way:

1. to Markdown, which whoever offers it wrote to be read;
2. to the words for a chart, whose plain text is a stub or all of its data;
3. where it is bare, such as ``<IPython.core.display.Latex object>``, to the first of: LaTeX, JSON,
   HTML as text, the labels of an SVG picture, and the name of what cannot be read here.

A widget's plain text is marked as one. Where nothing else can be read, the bare text is what there
is; a picture has no words of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from sandbox.outputs.charts import chart_text, embedded_chart_text
from sandbox.outputs.invisible import visible
from sandbox.outputs.markup import drawing_text, page_text
from sandbox.outputs.plain import clip

MAX_MADE = 16 * 1024
"""The bytes of a text that is made of another form."""
WIDGET = "application/vnd.jupyter.widget-view+json"

_MAX_BARE = 300
_BARE = re.compile(
    r"<(?:[\w.<>]+ (?:\d+ )?object(?: at 0x[0-9a-fA-F]+)?|[\w.<>]+ at 0x[0-9a-fA-F]+"
    r"|Figure size [^<>\n]*)>|[\w.]+\(\.\.\.\)"
)


def readable(data: Mapping[str, Any]) -> str:
    """The richest text that a reader can read of a mime bundle; empty when there is none."""
    plain_text = _joined(data.get("text/plain"))
    if markdown := _joined(data.get("text/markdown")):
        return markdown
    for name, value in data.items():
        if chart := chart_text(name, value):
            return clip(chart, MAX_MADE)
    told = "" if is_bare(plain_text) else plain_text
    if WIDGET in data:
        return f"[widget] {told}".rstrip(" ")
    if told.strip():
        return told
    for name, made in _FORMS.items():
        if name in data and (text := made(data[name])).strip():
            return text
    return plain_text


def is_bare(text: str) -> bool:
    """Whether a text names no more of an object than its class."""
    text = text[: _MAX_BARE + 1].strip()
    return len(text) <= _MAX_BARE and _BARE.fullmatch(text) is not None


def _joined(value: Any) -> str:
    if isinstance(value, list):
        return "".join(map(str, cast("list[Any]", value)))
    return value if isinstance(value, str) else ""


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):
        return ""
    return visible(clip(text, MAX_MADE))


def _page(value: Any) -> str:
    markup = _joined(value)
    text = page_text(markup) or embedded_chart_text(markup)
    return clip(text, MAX_MADE) or _named("HTML that only a browser shows")(markup)


def _drawing(value: Any) -> str:
    return clip(drawing_text(_joined(value)), MAX_MADE)


def _named(what: str) -> Callable[[Any], str]:
    return lambda value: f"[{what}, {len(_joined(value)):,} characters]"


def _pdf(value: Any) -> str:
    return f"[PDF, {len(_joined(value)) * 3 // 4:,} bytes]"


_FORMS: Mapping[str, Callable[[Any], str]] = {
    "text/latex": _joined,
    "application/json": _json,
    "text/html": _page,
    "image/svg+xml": _drawing,
    "application/pdf": _pdf,
    "application/javascript": _named("JavaScript, which runs in no browser here"),
}
"""What gives words where plain text has none, the best first."""
