"""What is published of arguments and results is plain, and true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from mcp import Client
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel, Field

from sandbox.server.desk import Desk
from sandbox.server.schemas import UNLISTED, published_arguments, published_result
from sandbox.server.tools.catalogue import all_tools

PLAIN = {"string", "integer", "number", "boolean", "array"}


class Part(BaseModel):
    """What lies in another."""

    name: str


class Told(BaseModel):
    """A result of many kinds of fields."""

    part: Part
    parts: list[Part]
    perhaps: Part | None = None
    count: int | None = Field(None, description="How many.")
    state: Literal["on", "off"] = "on"
    either: int | str = 0
    anything: Any = None
    known: dict[str, int] = {}


class Given(BaseModel, extra="forbid"):
    """Arguments of many kinds."""

    text: str = Field("", max_length=9)
    said: str = Field("", description="Empty: none.")
    level: Literal[0, 1] = 0
    mode: Literal["", "on"] = Field("", description='"on", or empty.')
    kind: Literal["a", "b"] = "a"
    count: int = Field(ge=1, le=2**53)
    share: float = Field(0.5, ge=0.1, le=60)
    names: tuple[str, ...] = ()
    aside: int = Field(1, json_schema_extra={UNLISTED: True})


def test_a_result_is_published_as_its_fields_and_their_types() -> None:
    assert published_result(Told.model_json_schema()) == {
        "type": "object",
        "properties": {
            "part": {"type": "object"},
            "parts": {"type": "array"},
            "perhaps": {"type": ["object", "null"]},
            "count": {"type": ["integer", "null"], "description": "How many."},
            "state": {"type": "string"},
            "either": {"type": ["integer", "string"]},
            "anything": {},
            "known": {"type": "object"},
        },
    }


def test_arguments_are_published_without_what_only_the_server_checks() -> None:
    assert published_arguments(Given.model_json_schema()) == {
        "type": "object",
        "properties": {
            "text": {"type": "string", "default": ""},
            "said": {"type": "string", "description": "Empty: none."},
            "level": {"type": "integer", "default": 0, "maximum": 1},
            "mode": {"type": "string", "description": '"on", or empty.'},
            "kind": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "count": {"type": "integer"},
            "share": {"type": "number", "default": 0.5, "minimum": 0.1, "maximum": 60},
            "names": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["count"],
    }


def test_what_no_client_could_be_told_stops_the_start() -> None:
    class Gaps(BaseModel):
        level: Literal[0, 2]

    class Either(BaseModel):
        value: int | str

    for model in (Gaps, Either):
        with pytest.raises(AssertionError, match=r"level|value"):
            published_arguments(model.model_json_schema())


def test_a_tool_without_arguments_takes_a_session_for_clients_that_need_one() -> None:
    assert list(published_arguments({"type": "object"})["properties"]) == ["session_id"]


def parts_of(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas in it."""
    if isinstance(schema, dict):
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(part, dict | list):
            yield from parts_of(part)


@pytest.mark.anyio
async def test_published_schemas_hold_nothing_that_clients_of_models_stumble_over(
    client: Client,
) -> None:
    for tool in (await client.list_tools()).tools:
        Draft202012Validator.check_schema(tool.input_schema)
        Draft202012Validator.check_schema(tool.output_schema)
        for part in (*parts_of(tool.input_schema), *parts_of(tool.output_schema)):
            assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const"} & part.keys()
            assert "additionalProperties" not in part, tool.name
            assert not isinstance(part.get("title"), str), tool.name
            assert all(isinstance(each, str) and each for each in part.get("enum", ())), tool.name
            assert part.get("default", "") is not None, tool.name
        assert tool.input_schema["properties"], tool.name
        for name, part in tool.input_schema["properties"].items():
            assert part["type"] in PLAIN, f"{tool.name}.{name}"
            assert part["type"] != "array" or part["items"]["type"] in PLAIN, f"{tool.name}.{name}"


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("list_sessions", {}),
    ("open_session", {"name": "a", "workspace": "w"}),
    ("list_workspaces", {}),
    ("get_session", {}),
    ("list_sessions", {}),
    ("list_policies", {}),
    ("execute_code", {"code": "print(1)\n40 + 2"}),
    ("execute_code", {"code": 'raise ValueError("no")'}),
    ("execute_code", {"code": "sleep(60)", "wait": 0.05}),
    ("get_execution", {"execution_id": "execution_id"}),
    ("list_executions", {}),
    ("interrupt_kernel", {}),
    ("get_execution", {"execution_id": "execution_id", "wait": 5}),
    ("list_kernels", {}),
    ("start_kernel", {}),
    ("restart_kernel", {}),
    ("complete_code", {"code": "pri"}),
    ("inspect_code", {"code": "print"}),
    ("checkpoint_kernel", {"name": "a"}),
    ("list_checkpoints", {}),
    ("rollback_kernel", {"name": "a"}),
    ("drop_checkpoint", {"name": "a"}),
    ("branch_kernel", {}),
    ("stop_kernel", {}),
    ("run_command", {"command": "say x"}),
    ("run_command", {"command": "sleep 60", "wait": 0}),
    ("get_command", {"command_id": "command_id"}),
    ("stop_command", {"command_id": "command_id"}),
    ("get_command", {"command_id": "command_id"}),
    ("open_terminal", {}),
    ("list_terminals", {}),
    ("write_terminal", {"terminal_id": "terminal_id", "text": "x", "wait": 0}),
    ("read_terminal", {"terminal_id": "terminal_id"}),
    ("resize_terminal", {"terminal_id": "terminal_id", "rows": 9, "cols": 9}),
    ("close_terminal", {"terminal_id": "terminal_id"}),
    ("write_file", {"path": "a", "content": "b"}),
    ("write_file", {"path": "p", "content": "AAEC", "encoding": "base64"}),
    ("read_file", {"path": "a"}),
    ("read_file", {"path": "p"}),
    ("list_files", {}),
    ("stat_file", {"path": "a"}),
    ("edit_file", {"path": "a", "old_string": "b", "new_string": "c"}),
    ("move_file", {"source": "a", "target": "c"}),
    ("make_directory", {"path": "d"}),
    ("delete_file", {"path": "c"}),
    ("export_session", {}),
    ("use_notebook", {"notebook_name": "n", "notebook_path": "n.ipynb", "mode": "create"}),
    ("insert_cell", {"cell_index": 0, "cell_type": "markdown", "cell_source": "a\nb"}),
    ("insert_execute_code_cell", {"cell_index": -1, "cell_source": "1 + 1"}),
    ("execute_cell", {"cell_index": 1}),
    ("read_cell", {"cell_index": 1}),
    ("read_notebook", {"response_format": "detailed"}),
    ("run_notebook", {}),
    ("overwrite_cell_source", {"cell_index": 0, "cell_source": "c"}),
    ("edit_cell_source", {"cell_index": 0, "old_string": "c", "new_string": "d"}),
    ("move_cell", {"source_index": 0, "target_index": 1}),
    ("clear_cell_output", {"cell_index": 0}),
    ("delete_cell", {"cell_indices": [0]}),
    ("list_notebooks", {}),
    ("restart_notebook", {}),
    ("unuse_notebook", {"notebook_name": "n"}),
    ("tighten_session", {"network": "none"}),
    ("fork_session", {"name": "copy"}),
    ("close_session", {}),
    ("delete_workspace", {"name": "absent"}),
]
"""Every tool, and results of each kind that it has; a value that is its key is that of before."""


@pytest.mark.anyio
async def test_every_result_is_as_published(client: Client, desk: Desk) -> None:
    tools = await MCPServer(name="all", tools=all_tools(desk)).list_tools()
    schemas = {tool.name: tool.output_schema for tool in tools}
    seen: dict[str, Any] = {}
    for tool, given in CALLS:
        asked = {key: seen[key] if key == value else value for key, value in given.items()}
        result = await client.call_tool(tool, asked)
        told = result.structured_content
        if told is None:
            assert result.is_error, tool
            continue
        Draft202012Validator(schemas[tool]).validate(told)
        assert set(told) <= set(schemas[tool]["properties"]), tool
        seen |= told
    assert {tool for tool, _ in CALLS} == set(schemas), "every tool"
