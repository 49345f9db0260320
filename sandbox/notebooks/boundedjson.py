"""JSON of a notebook that anybody may have made: what it can cost is known before it is parsed."""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

from sandbox.errors import InvalidRequest
from sandbox.outputs.plain import encodable

MAX_MEMORY = 512 * 1024 * 1024
MAX_DEPTH = 100
_COSTS = ((b"{", 240), (b"[", 64), (b'"', 60), (b",", 64))
"""What each of these can stand for takes in memory, in bytes, at most or nearly so."""
_LARGE_NUMBER = re.compile(rb"[eE]\+?\d{3}|\d{300}")
"""What every number has that is too large, and many a text; others need not be looked at."""
_SURROGATE = re.compile(rb"\\u[dD][89abAB]")


def parse_object(data: bytes) -> dict[str, Any]:
    """The object that these bytes hold, without anything that could not be written again.

    Raises:
        InvalidRequest: They hold none, or one that is too deep or takes too much memory.
    """
    if sum(data.count(sign) * cost for sign, cost in _COSTS) > MAX_MEMORY:
        raise InvalidRequest("The notebook has too many values to be read.")
    try:
        parse_float = _finite if _LARGE_NUMBER.search(data) else None
        document = json.loads(
            data.decode("utf-8-sig"), parse_float=parse_float, parse_constant=_no_number
        )
        if _SURROGATE.search(data):
            document = json.loads(encodable(json.dumps(document, ensure_ascii=False)))
    except RecursionError as exc:
        raise _too_deep() from exc
    except ValueError as exc:  # UnicodeDecodeError and JSONDecodeError are such
        raise InvalidRequest(f"The notebook is no JSON in UTF-8: {exc}."[:300]) from exc
    if not isinstance(document, dict):
        raise InvalidRequest("It is not a notebook: its JSON is no object.")
    _check_depth(document)
    return cast("dict[str, Any]", document)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _check_depth(document: Any) -> None:
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [child for each in level for child in _containers(each)]
        if not level:
            return
    raise _too_deep()


def _containers(value: Any) -> list[Any]:
    """The objects and lists in an object or list."""
    children = cast("dict[str, Any]", value).values() if isinstance(value, dict) else value
    return [child for child in cast("list[Any]", children) if isinstance(child, dict | list)]


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The notebook's JSON is nested more than {MAX_DEPTH} deep.")
