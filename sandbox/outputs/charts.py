"""What charts and maps that come as JSON show, in a few lines: title, kind, fields, points.

The JSON is hostile: only what is asked for is looked at, each of it in its type, up to a bound.

https://vega.github.io/vega-lite/docs/spec.html, https://plotly.com/javascript/reference/,
https://www.rfc-editor.org/rfc/rfc7946
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, cast

from sandbox.outputs.words import words

MAX_VIEWS = 24
"""The views of a chart, or traces of a figure, that are told of."""
MAX_DEPTH = 8
MAX_CHANNELS = 12
MAX_FEATURES = 10_000
"""The features of a map that are looked at."""
MAX_EMBEDDED = 256 * 1024
"""The characters of a chart that is looked for in a page's script."""
MAX_TRIES = 8
_VEGA_CALL = re.compile(r"(?:\}\)\(\s{0,100}|vegaEmbed\([^{}()]{0,100})(?=\{)")
_PLOTLY_CALL = re.compile(
    r"Plotly\.(?:newPlot|react)\(\s{0,100}[\"'][^\"']{0,100}[\"'],\s{0,100}(?=\[)"
)
_PARTS = ("layer", "hconcat", "vconcat", "concat")
_COMMA = re.compile(r",\s{0,100}(?=\{)")
_decoder = json.JSONDecoder()
_ITEM_BYTES = {"1": 1, "2": 2, "4": 4, "8": 8}


def chart_text(name: str, value: Any) -> str:
    """The words for a chart or a map of a mime type; empty when the type is not one of them."""
    found = _object(value)
    if name.startswith(("application/vnd.vegalite.", "application/vnd.vega.")):
        return "\n".join(_vega(found))
    if name.startswith("application/vnd.plotly."):
        return "\n".join(_plotly(found))
    if name == "application/geo+json":
        return "\n".join(_map(found))
    return ""


def embedded_chart_text(markup: str) -> str:
    """The words for a chart that a page's script draws, as Altair and Plotly write it; empty when
    none is found."""
    if "Plotly." in markup:
        for data, after in _decoded(_PLOTLY_CALL, markup):
            layout = next((found for found, _ in _decoded(_COMMA, after)), None)
            return "\n".join(_plotly({"data": data, "layout": layout}))
    if "vega" in markup:
        for spec, _ in _decoded(_VEGA_CALL, markup):
            if "vega" in words(_object(spec).get("$schema")):
                return "\n".join(_vega(_object(spec)))
    return ""


def _decoded(call: re.Pattern[str], script: str) -> Iterator[tuple[Any, str]]:
    """The JSON arguments of calls, each with what follows it."""
    for match in islice(call.finditer(script), MAX_TRIES):
        text = script[match.end() : match.end() + MAX_EMBEDDED]
        try:
            value, end = _decoder.raw_decode(text)
        except (ValueError, RecursionError):
            continue
        yield value, text[end:]


# --- Vega and Vega-Lite


def _vega(spec: Mapping[str, Any]) -> Iterator[str]:
    yield " ".join(("[Vega chart]", _title(spec))).rstrip()
    for number, (view, data) in enumerate(_views(spec, {}, 0)):
        if number == MAX_VIEWS:
            yield "[… more views …]"
            return
        parts = [_mark(view), _points(data, _object(spec.get("datasets")))]
        if view is not spec and (title := _title(view)):
            parts.insert(0, title)
        yield "; ".join(filter(None, (": ".join(filter(None, parts[:-1])), parts[-1])))
    for mark in _list(spec.get("marks"))[:MAX_VIEWS]:  # Vega's own
        yield words(_object(mark).get("type"))


def _views(
    spec: Mapping[str, Any], data: Mapping[str, Any], depth: int
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The views that a chart is made of, each with its data."""
    data = _object(spec.get("data")) or data
    if "mark" in spec:
        yield spec, data
    if depth < MAX_DEPTH:
        inner = [each for part in _PARTS for each in _list(spec.get(part))[: MAX_VIEWS + 1]]
        for each in (*inner, spec.get("spec")):
            yield from _views(_object(each), data, depth + 1)


def _mark(view: Mapping[str, Any]) -> str:
    mark = view.get("mark")
    kind = words(_object(mark).get("type") or mark)
    channels = [
        f"{words(channel)} = {field}"
        for channel, found in list(_object(view.get("encoding")).items())[:MAX_CHANNELS]
        if (field := _field(_object(found)))
    ]
    return f"{kind}: {', '.join(channels)}" if channels else kind


def _field(channel: Mapping[str, Any]) -> str:
    field = words(channel.get("field"))
    for made in ("aggregate", "timeUnit"):
        if function := words(channel.get(made)):
            field = f"{function}({field})"
    if channel.get("bin"):
        field = f"bin({field})"
    kind = words(channel.get("type"))
    title = words(channel.get("title"))
    about = ", ".join(filter(None, (kind, f"titled {title}" if title else "")))
    return f"{field} ({about})" if field and about else field


def _points(data: Mapping[str, Any], datasets: Mapping[str, Any]) -> str:
    values = data.get("values", datasets.get(words(data.get("name"))))
    if isinstance(values, list):
        return f"{len(cast('list[Any]', values)):,} points"
    address = words(data.get("url"))
    return f"data from {address}" if address else ""


# --- Plotly


def _plotly(figure: Mapping[str, Any]) -> Iterator[str]:
    layout = _object(figure.get("layout"))
    yield " ".join(("[Plotly figure]", _title(layout))).rstrip()
    axes = [
        f"{words(name)} = {title}"
        for name, found in list(layout.items())[:200]
        if name.startswith(("xaxis", "yaxis", "zaxis")) and (title := _title(_object(found)))
    ]
    if axes:
        yield ", ".join(axes[:MAX_CHANNELS])
    traces = _list(figure.get("data"))
    for trace in map(_object, traces[:MAX_VIEWS]):
        kind = words(trace.get("type")) or "scatter"
        name = words(trace.get("name"))
        mode = words(trace.get("mode"))
        counts = (
            _length(trace.get(key)) for key in ("x", "y", "z", "values", "labels", "lat", "r")
        )
        count = next(filter(None, counts), 0)
        about = (f"{kind} {mode}".rstrip(), f"'{name}'" if name else "")
        yield " ".join(filter(None, about)) + (f": {count:,} points" if count else "")
    if len(traces) > MAX_VIEWS:
        yield f"[… {len(traces) - MAX_VIEWS:,} more traces …]"


def _length(value: Any) -> int:
    """How many values an array has, which Plotly also writes as base64 of its bytes."""
    if isinstance(value, list):
        return len(cast("list[Any]", value))
    found = _object(value)
    data, kind = found.get("bdata"), found.get("dtype")
    if not isinstance(data, str) or not isinstance(kind, str):
        return 0
    return len(data.rstrip("=")) * 3 // 4 // _ITEM_BYTES.get(kind[-1:], 1)


# --- GeoJSON


def _map(value: Mapping[str, Any]) -> Iterator[str]:
    features = _list(value.get("features"))
    if not features:
        yield f"[GeoJSON] {words(value.get('type'))}".rstrip()
        return
    kinds: Counter[str] = Counter()
    names: dict[str, None] = {}
    for feature in map(_object, features[:MAX_FEATURES]):
        kinds[words(_object(feature.get("geometry")).get("type")) or "no geometry"] += 1
        if len(names) < MAX_CHANNELS:
            names.update(dict.fromkeys(map(words, _object(feature.get("properties")))))
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(MAX_CHANNELS))
    yield f"[GeoJSON] {len(features):,} features: {told}"
    if names:
        yield f"properties: {', '.join(list(names)[:MAX_CHANNELS])}"


# --- what is in them


def _title(value: Mapping[str, Any]) -> str:
    """A title, which is a text, lines of it or an object that has one."""
    title = value.get("title")
    if isinstance(title, dict):
        title = cast("dict[str, Any]", title).get("text")
    if isinstance(title, list):
        title = " ".join(map(words, cast("list[Any]", title)[:MAX_VIEWS]))
    return words(title)


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
