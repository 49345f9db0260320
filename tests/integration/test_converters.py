"""Every tool, as the packages of model vendors convert it for their models.

The packages have an environment of their own, made once from their lock.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from benchmarks.tokens import tool_lists
from sandbox.toolsets import ALL, TOOLSETS

from ..support.environments import python_with

CONVERTING = Path(__file__).parents[1] / "support/converting.py"
STRICT = {
    *("type", "description", "default", "enum", "items", "minimum", "maximum"),
    *("properties", "required", "additionalProperties"),
}
"""The keywords that OpenAI takes in strict mode."""

Tools = dict[str, dict[str, Any]]
"""Tools by name."""


@pytest.fixture(scope="module")
def told() -> dict[str, Tools]:
    """The tools of each toolset as they are sent."""
    lists = anyio.run(tool_lists)
    return {name: {tool["name"]: tool for tool in tools} for name, tools in lists.items()}


@pytest.fixture(scope="module")
def made(told: dict[str, Tools]) -> dict[str, dict[str, Tools]]:
    """What each vendor's converter makes of them, by toolset and vendor; a warning is an error."""
    given = {name: list(tools.values()) for name, tools in told.items()}
    try:
        python = python_with("converters")
    except AssertionError as exc:
        pytest.fail(f"{exc}\nCan the package index be reached that pip is configured with?")
    done = subprocess.run(
        [python, "-I", CONVERTING],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def schemas_in(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema of arguments and those of its arguments and their items."""
    yield schema
    for part in (*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])):
        yield from schemas_in(part)


@pytest.mark.parametrize("toolset", [ALL, *TOOLSETS])
def test_google_takes_every_tool_with_all_of_its_arguments(
    told: dict[str, Tools], made: dict[str, dict[str, Tools]], toolset: str
) -> None:
    converted = made[toolset]["google"]
    assert set(converted) == set(told[toolset])
    for name, tool in told[toolset].items():
        parameters, schema = converted[name]["parameters"], tool["inputSchema"]
        assert converted[name]["description"] == tool["description"]
        assert parameters["type"] == "OBJECT"
        assert parameters.get("required", []) == schema.get("required", [])
        for key, part in schema["properties"].items():
            there = parameters["properties"][key]
            assert there["type"] == part["type"].upper(), f"{name}.{key}"
            assert there.get("description") == part.get("description"), f"{name}.{key}"
            assert there.get("enum") == part.get("enum"), f"{name}.{key}"
            assert "" not in there.get("enum", ()), f"{name}.{key}"


@pytest.mark.parametrize("toolset", [ALL, *TOOLSETS])
def test_openai_takes_every_tool_in_strict_mode(
    told: dict[str, Tools], made: dict[str, dict[str, Tools]], toolset: str
) -> None:
    converted = made[toolset]["openai"]
    assert set(converted) == set(told[toolset])
    for name, tool in told[toolset].items():
        assert converted[name]["strict"] is True, name
        parameters = converted[name]["parameters"]
        assert parameters["required"] == list(tool["inputSchema"]["properties"]), name
        assert parameters["additionalProperties"] is False, name
        for part in schemas_in(parameters):
            assert set(part) <= STRICT, name


@pytest.mark.parametrize("toolset", [ALL, *TOOLSETS])
def test_anthropic_takes_every_tool_as_it_is(
    told: dict[str, Tools], made: dict[str, dict[str, Tools]], toolset: str
) -> None:
    converted = made[toolset]["anthropic"]
    assert set(converted) == set(told[toolset])
    for name, tool in told[toolset].items():
        assert converted[name] == {
            "name": name,
            "description": tool["description"],
            "input_schema": tool["inputSchema"],
        }
