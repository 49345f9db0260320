"""Policy files as JSON Schema, for editors; what decides is still the loader."""

from __future__ import annotations

from typing import Any, cast

from sandbox.policy.fields import of_files
from sandbox.policy.models import Policy, describe
from sandbox.policy.packages import BASES

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of a policy file: keys, forms, bounds, and what is meant when one is left out.

    It accepts every good file. Some that it accepts are refused all the same: what only several
    keys together make wrong, a schema does not say.
    """
    token = of_files.set(True)
    try:
        schema = _plain(Policy.model_json_schema(by_alias=True, mode="validation"))
    finally:
        of_files.reset(token)
    properties = schema["properties"]
    del properties["name"]  # a policy has the name of its file
    schema["required"] = ["version"]
    schema["title"] = "Sandbox policy, version 1"
    schema["$schema"] = DIALECT
    properties["network"] = {
        "description": properties["network"].pop("description", "What may be reached."),
        "anyOf": [{"const": "none"}, properties["network"]],
    }
    image = schema["$defs"]["ImagePolicy"]
    del image["properties"]["locked"]  # follows from the lock
    properties["image"] = {
        "description": properties["image"].pop("description", "What it is made of."),
        "anyOf": [{"enum": list(BASES)}, properties["image"]],
    }
    said = describe(Policy(name="x"))
    for key, default in said.items():
        if key in properties and key not in ("version", "extends", "description"):
            properties[key]["default"] = default
    return schema


def _plain(value: Any) -> Any:
    """Without derived titles, and without defaults in the units of the model."""
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value)
        return {
            key: _described(_plain(item))
            for key, item in pairs.items()
            if not (key == "title" and isinstance(item, str)) and key != "default"
        }
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value


def _described(value: Any) -> Any:
    return " ".join(value.split()).replace("``", "`") if isinstance(value, str) else value
