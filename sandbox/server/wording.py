"""What is wrong with an argument, in the words of the tool: what it must be, and what was given."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic_core import ErrorDetails

from sandbox.outputs.plain import escaped

Schema = Mapping[str, Any]

_LENGTHS = frozenset({"string_too_short", "string_too_long", "too_long", "too_short"})


def problem(error: ErrorDetails, properties: Schema) -> str:
    """What is wrong with one argument, in a line.

    Args:
        error: As pydantic tells it, with the value given.
        properties: The tool's arguments, in JSON Schema.
    """
    name, *rest = error["loc"] or ("",)
    if error["type"] == "extra_forbidden":
        return unknown(str(name), list(properties))
    if error["type"] == "missing":
        return f"{printable(str(name))} is required"
    schema: Schema = properties.get(str(name), {})
    where = printable(str(name))
    for part in rest:
        schema = schema.get("items", {})
        where += f"[{printable(str(part))}]"
    if error["type"] == "value_error":  # one of our own, which begins with a verb
        return f"{where} {error['msg'].removeprefix('Value error, ')}"
    if error["type"] == "string_pattern_mismatch":
        return f"{where} must be as described: {schema.get('description', '')}".rstrip(".")
    return f"{where} must be {_wanted(schema)}{_but(error, schema)}"


def unknown(name: str, known: Sequence[str]) -> str:
    """That there is no such argument, with the one that may be meant."""
    shown = printable(name)
    close = difflib.get_close_matches(shown, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    return f"{shown}: there is no such argument; {hint}"


def printable(value: str, limit: int = 200) -> str:
    """Text of a caller made safe to repeat: one line, bounded, no control characters."""
    return escaped(value[:limit]) + ("…" if len(value) > limit else "")


def _wanted(schema: Schema) -> str:
    """What an argument must be."""
    kind = schema.get("type")
    if "enum" in schema or "const" in schema:
        values: list[Any] = schema.get("enum") or [schema["const"]]
        return " or ".join(json.dumps(value) for value in values)
    if kind in ("integer", "number"):
        named = "a whole number" if kind == "integer" else "a number"
        low, high = schema.get("minimum", "…"), schema.get("maximum", "…")
        return f"{named} from {_number(low)} to {_number(high)}"
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        of = "whole numbers" if schema.get("items", {}).get("type") == "integer" else "texts"
        return f"a list of {of}, {schema.get('maxItems', '…')} at most"
    if kind == "string":
        low, high = schema.get("minLength"), schema.get("maxLength")
        bounds = f"{low} to {high:,}" if low and high else f"at most {high:,}" if high else ""
        return f"text of {bounds} characters" if bounds else "text"
    return "something else"


def _but(error: ErrorDetails, schema: Schema) -> str:
    """What was given instead: its kind, never a text of it."""
    value: object = error["input"]
    if isinstance(value, bool):
        return f", not {json.dumps(value)}"
    if isinstance(value, int | float):
        shown = printable(repr(value), 40) if abs(value) < 10**30 else "one so large"
        return f", not {shown}" if schema.get("type") != "string" else ", not a number"
    if isinstance(value, str):
        if error["type"] in _LENGTHS:
            return f", not of {len(value):,}"
        return ", not text" if error["type"].endswith(("_parsing", "_type")) else ""
    if isinstance(value, list | tuple):
        size = len(cast("Sequence[object]", value))
        return f", not of {size:,}" if error["type"] in _LENGTHS else ", not a list"
    return ", not an object" if isinstance(value, dict) else ""


def _number(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)
