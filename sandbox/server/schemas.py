"""What is published of arguments and results: JSON Schema (2020-12) that every client can take.

A model reads all of it before it calls anything, and the converters of model vendors stumble over
much of what pydantic writes. So arguments are published with plain types, and results as their
fields alone, while the server checks and answers as exactly as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

Schema = dict[str, Any]

UNLISTED = "unlisted"
"""The key of an argument's schema that is taken and not published: no model has a use for it."""
EXPLAINED = "explained"
"""The key of one's schema whose empty default the server's instructions explain for all tools."""

_OF_ARGUMENTS = frozenset({"type", "description", "default", "enum", "minimum", "maximum"})
_EVIDENT: dict[str, Callable[[float], bool]] = {
    "minimum": lambda least: least in (-1, 0, 1),
    "maximum": lambda most: most >= 3600,
}
"""The bounds that nobody needs to be told who means well."""
_UNUSED_SESSION = {"type": "string", "description": "Not used here."}


def published_arguments(schema: Schema) -> Schema:
    """The schema of a tool's arguments as clients see it.

    A tool without any gets ``session_id``, which all tools take: some clients have no word for an
    object without properties.

    Raises:
        AssertionError: An argument is none of the plain types.
    """
    arguments: Schema = schema.get("properties", {})
    found: Schema = {
        "type": "object",
        "properties": {
            name: _argument(name, each) for name, each in arguments.items() if UNLISTED not in each
        }
        or {"session_id": _UNUSED_SESSION},
    }
    return found | ({"required": schema["required"]} if schema.get("required") else {})


def published_result(schema: Schema) -> Schema:
    """The schema of a tool's structured result as clients see it: its fields and their types."""
    definitions: Schema = schema.get("$defs", {})
    fields: Schema = schema.get("properties", {})
    return {
        "type": "object",
        "properties": {name: _field(each, definitions) for name, each in fields.items()},
    }


def _argument(name: str, schema: Schema) -> Schema:
    found = {key: value for key, value in schema.items() if key in _OF_ARGUMENTS}
    default = found.get("default", 0)
    is_told = "description" in found or EXPLAINED in schema
    if default in (None, []) or (is_told and (default == "" or default is False)):
        del found["default"]  # null has no type here, and what is empty the description tells
    choices: list[Any] = found.get("enum", [])
    if found.get("type") == "integer" and choices:
        del found["enum"]
        found |= {"minimum": min(choices), "maximum": max(choices)}
        if len(choices) != found["maximum"] - found["minimum"] + 1:
            raise AssertionError(f"{name}: an enumeration of numbers with gaps: {choices}")
    if "" in choices:  # which Gemini refuses
        del found["enum"]
    if found.get("type") == "array":
        found["items"] = {"type": schema["items"]["type"]}
    for bound, no_news in _EVIDENT.items():
        if bound in found and no_news(found[bound]):
            del found[bound]
    if not isinstance(found.get("type"), str):
        raise AssertionError(f"{name} is of no type that every client knows: {schema}")
    return found


def _field(schema: Schema, definitions: Schema) -> Schema:
    found: Schema = {}
    if types := _types(schema, definitions):
        found["type"] = types[0] if len(types) == 1 else types
    return found | ({"description": schema["description"]} if "description" in schema else {})


def _types(schema: Schema, definitions: Schema) -> list[str]:
    """The types that a value may have; empty for any."""
    if "$ref" in schema:
        return _types(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    choices = cast("list[Schema]", schema.get("anyOf") or schema.get("oneOf") or [])
    if choices:
        each = [_types(choice, definitions) for choice in choices]
        return list(dict.fromkeys(t for types in each for t in types)) if all(each) else []
    named: str | list[str] = schema.get("type", [])
    return [named] if isinstance(named, str) else named
