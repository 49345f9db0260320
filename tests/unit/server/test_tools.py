"""The tools as a client sees them: names, schemas, results, and what is refused."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import INVALID_PARAMS

from sandbox import resources
from sandbox.files.files import MAX_EDIT_BYTES
from sandbox.kernels.kernels import Kernels
from sandbox.policy import load
from sandbox.server.arguments import MAX_CODE, MAX_CONTENT
from sandbox.server.desk import Desk
from sandbox.server.foreign import is_foreign
from sandbox.server.grants import LOCAL_GRANT
from sandbox.server.mcpserver import mcp_server
from sandbox.server.reading import MAX_READ_BYTES
from sandbox.server.tool import ERROR_META_KEY
from sandbox.server.tools import notebooks
from sandbox.sessions.manager import SessionManager
from sandbox.testing import FakeEngine

from ...support.results import png

pytestmark = pytest.mark.anyio

MUTE = """\
version: 1
description: Runs code, and answers it once.
extends: offline
tools: [execute_code]
"""
TALKING = """\
version: 1
description: Runs code.
extends: offline
tools: [execute_code, get_execution]
limits:
  sessions: 1
"""

SILENT = """\
version: 1
description: Runs code, and answers it once, even to who exports it.
extends: offline
tools: [execute_code, export_session]
"""
ASKING = """\
version: 1
description: Nobody agrees to see again what ran.
extends: offline
approve: {tools: [get_execution]}
"""

PICTURE = base64.b64encode(png(30, 20)).decode()
UNLISTED = {
    "execute_code": {"progress_interval"},
    "get_execution": {"progress_interval", "session_id"},
    "get_command": {"session_id"},
    "stop_command": {"session_id"},
    **{
        tool: {"session_id"}
        for tool in (
            *("read_notebook", "restart_notebook", "unuse_notebook", "insert_cell", "read_cell"),
            *("overwrite_cell_source", "edit_cell_source", "move_cell", "delete_cell"),
            "clear_cell_output",
        )
    },
    "execute_cell": {"session_id", "progress_interval", "stream"},
    "insert_execute_code_cell": {"session_id", "progress_interval", "stream"},
    "run_notebook": {"session_id", "progress_interval"},
}
"""What is taken and not published, since no model has a use for it."""

CELL = {"cell_index": -1, "cell_id": ""}
RUN = {
    "timeout": 0,
    "wait": 50,
    "progress_interval": 5,
    "notebook_name": "",
    "session_id": "",
}
SIGNATURES = {
    "open_session": {
        "policy": "",
        "name": "",
        "workspace": "",
        "reuse": True,
        "checkpoint": "",
    },
    "list_policies": {},
    "list_sessions": {},
    "get_session": {"session_id": ""},
    "tighten_session": {"session_id": "", "network": "", "deny": []},
    "fork_session": {"session_id": "", "name": "", "count": 1},
    "list_workspaces": {},
    "delete_workspace": {},
    "close_session": {"session_id": ""},
    "execute_code": {
        "session_id": "",
        "kernel_id": "",
        "timeout": 0,
        "wait": 50,
        "progress_interval": 5,
        "detail": "brief",
    },
    "get_execution": {"wait": 0, "progress_interval": 5, "session_id": "", "detail": "brief"},
    "list_executions": {"session_id": ""},
    "list_kernels": {"session_id": ""},
    "start_kernel": {"kernel_name": "python3", "session_id": ""},
    "interrupt_kernel": {"kernel_id": "", "session_id": ""},
    "restart_kernel": {"kernel_id": "", "session_id": ""},
    "stop_kernel": {"kernel_id": "", "session_id": ""},
    "complete_code": {"cursor_pos": -1, "kernel_id": "", "session_id": ""},
    "inspect_code": {"cursor_pos": -1, "detail_level": 0, "kernel_id": "", "session_id": ""},
    "branch_kernel": {"kernel_id": "", "reseed": True, "session_id": ""},
    "checkpoint_kernel": {"kernel_id": "", "files": False, "session_id": ""},
    "rollback_kernel": {"kernel_id": "", "session_id": ""},
    "list_checkpoints": {"kernel_id": "", "session_id": ""},
    "drop_checkpoint": {"kernel_id": "", "session_id": ""},
    "run_command": {"session_id": "", "timeout": 0, "cwd": "", "stdin": "", "wait": 50},
    "get_command": {"wait": 0, "session_id": "", "detail": "brief"},
    "stop_command": {"session_id": ""},
    "open_terminal": {"session_id": "", "rows": 24, "cols": 80, "cwd": ""},
    "write_terminal": {"text": "", "keys": [], "session_id": "", "wait": 0.5, "after": None},
    "read_terminal": {"session_id": "", "wait": 0, "after": None},
    "resize_terminal": {"session_id": ""},
    "close_terminal": {"session_id": ""},
    "list_terminals": {"session_id": ""},
    "list_files": {
        "path": "",
        "max_depth": 1,
        "start_index": 0,
        "limit": 25,
        "pattern": "",
        "session_id": "",
    },
    "read_file": {"start_line": 1, "line_limit": 2000, "session_id": ""},
    "write_file": {"encoding": "utf-8", "mode": "", "session_id": ""},
    "edit_file": {"replace_all": False, "session_id": ""},
    "delete_file": {"recursive": False, "session_id": ""},
    "move_file": {"overwrite": False, "session_id": ""},
    "make_directory": {"session_id": ""},
    "stat_file": {"session_id": ""},
    "export_session": {"session_id": "", "path": "", "format": "ipynb"},
    "use_notebook": {"notebook_path": "", "mode": "connect", "kernel_id": "", "session_id": ""},
    "list_notebooks": {"session_id": ""},
    "read_notebook": {
        "notebook_name": "",
        "response_format": "brief",
        "start_index": 0,
        "limit": 20,
        "session_id": "",
    },
    "restart_notebook": {"notebook_name": "", "session_id": ""},
    "unuse_notebook": {"session_id": ""},
    "insert_cell": {"notebook_name": "", "session_id": ""},
    "overwrite_cell_source": {**CELL, "notebook_name": "", "session_id": ""},
    "edit_cell_source": {**CELL, "replace_all": False, "notebook_name": "", "session_id": ""},
    "move_cell": {
        "source_index": -1,
        "target_index": -1,
        "source_cell_id": "",
        "target_cell_id": "",
        "notebook_name": "",
        "session_id": "",
    },
    "delete_cell": {
        "cell_indices": [],
        "cell_ids_to_delete": [],
        "include_source": True,
        "notebook_name": "",
        "session_id": "",
    },
    "clear_cell_output": {**CELL, "notebook_name": "", "session_id": ""},
    "read_cell": {**CELL, "include_outputs": True, "notebook_name": "", "session_id": ""},
    "execute_cell": {**CELL, **RUN, "stream": True},
    "insert_execute_code_cell": {**RUN, "stream": True},
    "run_notebook": {**RUN, "allow_errors": False},
}
EXPLAINED = {
    *("session_id", "kernel_id", "path", "cwd"),
    *("notebook_name", "cell_id", "source_cell_id", "target_cell_id"),
}
"""What the server's instructions say of all tools: empty is left out."""
REQUIRED = {
    "use_notebook": ["notebook_name"],
    "unuse_notebook": ["notebook_name"],
    "insert_cell": ["cell_index", "cell_type", "cell_source"],
    "overwrite_cell_source": ["cell_source"],
    "edit_cell_source": ["old_string", "new_string"],
    "insert_execute_code_cell": ["cell_index", "cell_source"],
    "delete_workspace": ["name"],
    **{tool: ["name"] for tool in ("checkpoint_kernel", "rollback_kernel", "drop_checkpoint")},
    "execute_code": ["code"],
    "get_execution": ["execution_id"],
    "complete_code": ["code"],
    "inspect_code": ["code"],
    "run_command": ["command"],
    "get_command": ["command_id"],
    "stop_command": ["command_id"],
    "write_terminal": ["terminal_id"],
    "read_terminal": ["terminal_id"],
    "resize_terminal": ["terminal_id", "rows", "cols"],
    "close_terminal": ["terminal_id"],
    "read_file": ["path"],
    "write_file": ["path", "content"],
    "edit_file": ["path", "old_string", "new_string"],
    "delete_file": ["path"],
    "move_file": ["source", "target"],
    "make_directory": ["path"],
    "stat_file": ["path"],
}


def words(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


async def test_every_tool_has_its_published_arguments_and_defaults(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == set(SIGNATURES)
    for name, tool in tools.items():
        schema, signature = tool.input_schema, SIGNATURES[name]
        required = REQUIRED.get(name, [])
        assert schema.get("required", []) == required, name
        arguments = {*required, *signature} - UNLISTED.get(name, set())
        assert set(schema["properties"]) == (arguments or {"session_id"}), name
        for key in arguments - {*required}:
            published = schema["properties"][key]
            if "default" in published:
                assert published["default"] == signature[key], f"{name}.{key}"
            else:  # then the description says what stands for it, or it is empty
                assert signature[key] in ("", None, False, []), f"{name}.{key}"
                is_told = key in EXPLAINED or "description" in published
                assert signature[key] == [] or is_told, f"{name}.{key}"


async def test_what_is_not_published_is_taken_too(client: Client) -> None:
    told = await client.call_tool("execute_code", {"code": "1", "progress_interval": 1})
    ran = told.structured_content
    assert not told.is_error
    asked = {key: ran[key] for key in ("execution_id", "session_id")}
    told = await client.call_tool("get_execution", {**asked, "progress_interval": 2})
    assert not told.is_error
    refused = await client.call_tool("execute_code", {"code": "1", "progress_interval": 0})
    assert "number from 0.1 to 3600, not 0" in words(refused)


async def test_every_tool_takes_a_session_id_and_says_where_it_means_nothing(
    client: Client,
) -> None:
    for tool, arguments in (
        ("open_session", {}),
        ("list_policies", {}),
        ("list_sessions", {}),
        ("list_workspaces", {}),
    ):
        plain = await client.call_tool(tool, {**arguments, "session_id": ""})
        named = await client.call_tool(tool, {**arguments, "session_id": "x"})
        assert not plain.is_error, tool
        assert not named.is_error, tool
        assert "ignored" not in words(plain)
        assert f"ignored, for {tool} has no such argument: session_id" in words(named)
    gone = await client.call_tool("delete_workspace", {"name": "w", "session_id": "x"})
    assert gone.meta[ERROR_META_KEY]["code"] == "not_found"


async def test_minus_one_is_the_place_of_ones_last_read(client: Client) -> None:
    opened = await client.call_tool("open_terminal", {})
    asked = {"terminal_id": opened.structured_content["terminal_id"]}
    for position in (-1, "-1", None):
        read = await client.call_tool("read_terminal", {**asked, "after": position})
        assert not read.is_error, words(read)


def parts_of(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas in it."""
    if isinstance(schema, dict):
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(part, dict | list):
            yield from parts_of(part)


async def test_a_choice_of_numbers_is_published_as_bounds_and_is_as_strict_as_before(
    client: Client,
) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    level = tools["inspect_code"].input_schema["properties"]["detail_level"]
    assert (level["type"], level["maximum"]) == ("integer", 1)
    refused = await client.call_tool("inspect_code", {"code": "x", "detail_level": 2})
    assert refused.is_error


async def test_only_what_there_is_is_advertised(desk: Desk) -> None:
    for mode in ("legacy", "auto"):
        async with Client(mcp_server(desk), mode=mode) as client:
            told = client.server_capabilities
            assert told.tools is not None
            assert told.prompts is not None, mode
            assert told.resources is not None, mode
        async with Client(mcp_server(desk, ["files"]), mode=mode) as client:
            told = client.server_capabilities
            assert told.prompts is None, mode
            assert told.resources is None, mode
            assert (await client.list_prompts()).prompts == []


async def test_what_is_not_there_is_an_error_of_the_protocol(client: Client) -> None:
    for asked, message in (
        (client.call_tool("no\x1btool", {}), "Unknown tool: no\\x1btool"),
        (client.get_prompt("none"), "Unknown prompt: none"),
    ):
        with pytest.raises(MCPError) as refused:
            await asked
        assert (refused.value.code, refused.value.message) == (INVALID_PARAMS, message)


EVIDENT = {
    *("session_id", "kernel_id", "execution_id", "command_id", "terminal_id"),
    *(
        "name",
        "wait",
        "cwd",
        "code",
        "command",
        "stdin",
        "rows",
        "cols",
        "text",
        "path",
        "source",
        "target",
        "content",
    ),
    *("max_depth", "start_index", "limit", "start_line", "line_limit"),
    *("old_string", "new_string", "replace_all", "recursive", "overwrite"),
    *("notebook_name", "mode", "cell_index", "cell_id", "cell_type", "cell_source"),
    *("source_index", "target_index", "source_cell_id", "target_cell_id"),
    *("cell_indices", "cell_ids_to_delete", "include_source", "include_outputs"),
}
"""The arguments of which names and tools say it all, or the server's instructions."""


RUNNING = {"execute_cell", "insert_execute_code_cell", "run_notebook"}
"""Take two arguments as execute_code does, which explains them."""


async def test_every_tool_and_argument_is_explained_and_typed(client: Client) -> None:
    for tool in (await client.list_tools()).tools:
        assert tool.description, tool.name
        assert len(tool.description) > 40, tool.name
        assert tool.title, tool.name
        assert tool.output_schema is not None, tool.name
        assert tool.output_schema["type"] == "object", tool.name
        assert tool.annotations is not None, tool.name
        assert tool.annotations.open_world_hint is False, tool.name
        for key, part in tool.input_schema["properties"].items():
            is_as_before = tool.name in RUNNING and key in ("timeout", "wait")
            is_told = key in EVIDENT or is_as_before or part.get("description")
            assert is_told, f"{tool.name}.{key}"


async def test_tools_that_remove_or_overwrite_say_so(client: Client) -> None:
    found = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}
    reading = {name for name, hints in found.items() if hints and hints.read_only_hint}
    destroying = {name for name, hints in found.items() if hints and hints.destructive_hint}
    assert {"read_file", "list_files", "get_execution", "list_sessions"} <= reading
    assert {"close_session", "delete_file", "restart_kernel", "execute_code"} <= destroying
    assert not reading & destroying


async def test_a_cell_opens_the_default_session_and_keeps_its_variables(client: Client) -> None:
    first = await client.call_tool("execute_code", {"code": "x = 20 + 22\nprint(1)"})
    again = await client.call_tool("execute_code", {"code": "x"})
    assert first.structured_content["status"] == "ok"
    assert again.structured_content["session_id"] == first.structured_content["session_id"]
    assert again.structured_content["text"] == "42"
    assert words(again).startswith("42")
    assert not again.is_error


async def test_a_result_has_published_fields_only_and_leaves_out_what_is_empty(
    client: Client,
) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    asked = {
        "execute_code": {"code": "1 + 1", "detail": "full"},
        "run_command": {"command": "say early sleep 0"},
    }
    for name, given in asked.items():
        told = (await client.call_tool(name, given)).structured_content
        assert set(told) < set(tools[name].output_schema["properties"]), name
        assert "denials" not in told


async def test_outputs_are_answered_as_they_are_when_that_is_asked_for(client: Client) -> None:
    brief = await client.call_tool("execute_code", {"code": "40 + 2"})
    full = await client.call_tool(
        "get_execution",
        {"execution_id": brief.structured_content["execution_id"], "detail": "full"},
    )
    assert brief.structured_content["text"] == "42"
    assert "outputs" not in brief.structured_content
    assert full.structured_content["outputs"][0]["data"] == {"text/plain": "42"}
    assert words(full) == words(brief)


async def test_a_cell_that_raises_is_a_failed_call_with_its_traceback(client: Client) -> None:
    result = await client.call_tool("execute_code", {"code": 'raise ValueError("no")'})
    assert result.is_error
    assert result.structured_content["status"] == "error"
    assert result.structured_content["state"] == "kept"
    assert result.structured_content["error"]["name"] == "ValueError"
    assert "ValueError" in words(result)


async def test_long_work_answers_running_and_is_found_again_by_its_id(client: Client) -> None:
    began = await client.call_tool("execute_code", {"code": "sleep(0.4)\nprint(7)", "wait": 0.05})
    assert began.structured_content["status"] == "running"
    assert not began.is_error
    execution_id = began.structured_content["execution_id"]
    assert execution_id in words(began)
    with anyio.fail_after(10):
        ended = await client.call_tool("get_execution", {"execution_id": execution_id, "wait": 9})
    assert ended.structured_content["status"] == "ok"
    assert ended.structured_content["text"] == "7"


async def test_a_long_command_answers_running_and_is_found_again_by_its_id(client: Client) -> None:
    began = await client.call_tool("run_command", {"command": "say early sleep 0.4", "wait": 0.2})
    told = began.structured_content
    assert (told["status"], told["stdout"]) == ("running", "early\n")
    assert "exit_code" not in told
    assert not began.is_error
    assert told["command_id"] in words(began)
    with anyio.fail_after(10):
        ended = await client.call_tool("get_command", {"command_id": told["command_id"], "wait": 9})
    assert ended.structured_content["status"] == "exited"
    assert ended.structured_content["exit_code"] == 0


async def test_a_command_is_stopped_by_its_id_and_its_output_is_told(client: Client) -> None:
    began = await client.call_tool("run_command", {"command": "say early sleep 60", "wait": 0.2})
    stopped = {"command_id": began.structured_content["command_id"]}
    with anyio.fail_after(10):
        told = (await client.call_tool("stop_command", stopped)).structured_content
        again = (await client.call_tool("stop_command", stopped)).structured_content
    assert (told["status"], told["stdout"]) == ("stopped", "early\n")
    assert again == told


async def test_giving_a_command_up_stops_it_and_giving_up_asking_does_not(
    client: Client, manager: SessionManager
) -> None:
    session = await manager.get(LOCAL_GRANT.caller())
    with anyio.move_on_after(0.3):
        await client.call_tool("run_command", {"command": "sleep 60"})
    with anyio.fail_after(5):
        while session.commands.is_busy:
            await anyio.sleep(0.01)
    began = await client.call_tool("run_command", {"command": "sleep 60", "wait": 0})
    asked = {"command_id": began.structured_content["command_id"]}
    with anyio.move_on_after(0.3):
        await client.call_tool("get_command", {**asked, "wait": 60})
    await anyio.sleep(0.3)  # in which it would be stopped
    told = await client.call_tool("get_command", asked)
    assert told.structured_content["status"] == "running"


async def test_when_the_server_stops_its_commands_go_on(
    client: Client, desk: Desk, manager: SessionManager
) -> None:
    session = await manager.get(LOCAL_GRANT.caller())
    async with anyio.create_task_group() as tasks:
        told: list[Any] = []

        async def run() -> None:
            told.append(await client.call_tool("run_command", {"command": "sleep 60"}))

        tasks.start_soon(run)
        with anyio.fail_after(5):
            while not session.commands.is_busy:
                await anyio.sleep(0.01)
        desk.stop()
    assert told[0].structured_content["status"] == "running"
    assert session.commands.is_busy


async def test_a_commands_output_is_told_within_what_a_message_can_hold(client: Client) -> None:
    result = await client.call_tool("run_command", {"command": "flood 5000000"})
    told = result.structured_content
    assert len(result.model_dump_json()) < 500_000
    assert len(told["stdout"]) + told["truncated_bytes"] > 4_999_000
    assert "bytes cut" in told["stdout"]


async def test_progress_carries_new_output_while_the_caller_waits(client: Client) -> None:
    told: list[tuple[float, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    result = await client.call_tool(
        "execute_code",
        {"code": 'print("early")\nsleep(0.6)\nprint("late")', "progress_interval": 0.1},
        progress_callback=hear,
    )
    assert result.structured_content["status"] == "ok"
    assert any("early" in (message or "") for _, message in told)
    times = [progress for progress, _ in told]
    assert times == sorted(set(times))


async def test_giving_a_call_up_interrupts_its_cell_and_keeps_the_kernel(client: Client) -> None:
    await client.call_tool("execute_code", {"code": "x = 5"})
    with anyio.move_on_after(0.3):
        await client.call_tool("execute_code", {"code": "sleep(60)"})
    with anyio.fail_after(5):
        after = await client.call_tool("execute_code", {"code": "x"})
    assert after.structured_content["text"] == "5"


async def test_a_time_out_says_so_and_what_state_is_left(client: Client) -> None:
    with anyio.fail_after(20):
        result = await client.call_tool("execute_code", {"code": "sleep(60)", "timeout": 0.3})
    assert result.is_error
    assert result.structured_content["status"] == "timeout"
    assert result.structured_content["state"] == "kept"


async def test_a_time_out_that_an_interrupt_does_not_end_says_that_the_state_is_gone(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Kernels.__init__.__kwdefaults__, "grace_s", 0.2)
    with anyio.fail_after(30):
        result = await client.call_tool("execute_code", {"code": "hang()", "timeout": 0.3})
    assert result.structured_content["status"] == "timeout"
    assert result.structured_content["state"] == "restarted"


async def test_open_session_reuses_an_open_one_unless_told_otherwise(client: Client) -> None:
    first = (await client.call_tool("open_session", {})).structured_content
    same = (await client.call_tool("open_session", {})).structured_content
    other = (await client.call_tool("open_session", {"reuse": False})).structured_content
    assert first["session_id"] == same["session_id"] != other["session_id"]
    assert {
        "session_id",
        "policy",
        "image",
        "runtime",
        "created_at",
        "expires_at",
        "limits",
        "workspace",
        "kernels",
    } <= set(first)
    listed = (await client.call_tool("list_sessions", {})).structured_content["sessions"]
    assert {info["session_id"] for info in listed} == {first["session_id"], other["session_id"]}


async def test_a_closed_session_is_gone(client: Client, engine: FakeEngine) -> None:
    session_id = (await client.call_tool("open_session", {})).structured_content["session_id"]
    closed = await client.call_tool("close_session", {"session_id": session_id})
    assert not closed.is_error
    assert not engine.containers
    after = await client.call_tool("get_session", {"session_id": session_id})
    assert after.is_error


async def test_files_are_written_read_edited_and_deleted(client: Client) -> None:
    await client.call_tool("write_file", {"path": "a.txt", "content": "one\ntwo\nthree\n"})
    read = await client.call_tool("read_file", {"path": "a.txt", "start_line": 2, "line_limit": 1})
    assert read.structured_content["content"] == "two\n"
    assert read.structured_content["more"] is True
    edited = await client.call_tool(
        "edit_file", {"path": "a.txt", "old_string": "two", "new_string": "zwei"}
    )
    assert "+zwei" in edited.structured_content["diff"]
    deleted = await client.call_tool("delete_file", {"path": "a.txt"})
    assert deleted.structured_content["deleted"] == 1
    missing = await client.call_tool("read_file", {"path": "a.txt"})
    assert missing.is_error
    assert missing.meta[ERROR_META_KEY]["reason"] == "not_found"


async def test_bytes_travel_as_base64(client: Client) -> None:
    await client.call_tool(
        "write_file", {"path": "b.bin", "content": "AAEC/w==", "encoding": "base64"}
    )
    read = await client.call_tool("read_file", {"path": "b.bin"})
    assert read.structured_content["encoding"] == "base64"
    assert read.structured_content["content"] == "AAEC/w=="


async def test_a_picture_is_read_as_an_image(client: Client) -> None:
    given = {"path": "p.png", "content": PICTURE, "encoding": "base64"}
    await client.call_tool("write_file", given)
    read = await client.call_tool("read_file", {"path": "p.png"})
    text, image = read.content
    assert "p.png: image/png, 30 × 20, 60 bytes" in text.text
    assert (image.type, image.mime_type, image.data) == ("image", "image/png", PICTURE)
    assert read.structured_content["content"] == ""
    assert text.text in read.structured_content["notes"]


@pytest.mark.parametrize("letter", ["x", "é", "你", "\u0001"])
async def test_a_large_text_comes_in_parts_that_fit_and_lose_nothing(
    client: Client, letter: str
) -> None:
    lines = [letter * 90 + f"{number}\n" for number in range(2500)]
    await client.call_tool("write_file", {"path": "big", "content": "".join(lines)})
    seen, start, more = "", 1, True
    while more:
        part = await client.call_tool(
            "read_file", {"path": "big", "start_line": start, "line_limit": 100_000}
        )
        assert len(part.model_dump_json()) < 1_000_000
        assert len(json.dumps(part.model_dump(mode="json"))) < 1_000_000
        seen += part.structured_content["content"]
        start += part.structured_content["line_count"]
        more = part.structured_content["more"]
    assert seen == "".join(lines)


@pytest.mark.parametrize("size", [300_000, 100])
async def test_bytes_that_are_no_text_are_base64_when_small_and_described_when_large(
    client: Client, size: int
) -> None:
    data = base64.b64encode(bytes(size)).decode()
    await client.call_tool("write_file", {"path": "b", "content": data, "encoding": "base64"})
    read = await client.call_tool("read_file", {"path": "b"})
    told = read.structured_content
    assert not read.is_error
    assert (told["content"], told["more"]) == ((data, False) if size == 100 else ("", True))
    assert f"{size:,} bytes" in words(read)
    assert "REST" in words(read)


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-be", "utf-16-be"),
        ("latin-1", "cp1252"),
    ],
)
async def test_text_in_another_encoding_is_decoded_and_the_answer_says_from_which(
    client: Client, encoding: str, told: str
) -> None:
    lines = ["name;ort\r\n", *["José;Málaga\r\n"] * 20_000]
    data = base64.b64encode("".join(lines).encode(encoding)).decode()
    await client.call_tool("write_file", {"path": "l", "content": data, "encoding": "base64"})
    read = await client.call_tool("read_file", {"path": "l", "line_limit": 2})
    last = await client.call_tool("read_file", {"path": "l", "start_line": 20_001})
    assert read.structured_content["encoding"] == told
    assert read.structured_content["content"] == "".join(lines[:2])
    assert last.structured_content["content"] == lines[-1]
    assert "Málaga" in words(read)
    assert (f"decoded as {told}" in words(read)) is (told != "utf-8")


async def test_a_stray_byte_far_into_a_text_is_shown_as_one(client: Client) -> None:
    data = base64.b64encode(b"x\n" * 200_000 + b"a\xffb\n").decode()
    await client.call_tool("write_file", {"path": "l", "content": data, "encoding": "base64"})
    read = await client.call_tool("read_file", {"path": "l", "start_line": 200_001})
    assert read.structured_content["content"] == "a\ufffdb\n"
    assert "not UTF-8" in words(read)


async def test_a_picture_is_known_by_its_bytes_not_by_its_name(client: Client) -> None:
    for name, content in (("p.dat", PICTURE), ("q.png", "AAEC/w==")):
        given = {"path": name, "content": content, "encoding": "base64"}
        await client.call_tool("write_file", given)
    picture = await client.call_tool("read_file", {"path": "p.dat"})
    other = await client.call_tool("read_file", {"path": "q.png"})
    assert [block.type for block in picture.content] == ["text", "image"]
    assert [block.type for block in other.content] == ["text"]
    assert "begins with 00 01 02 ff" in words(other)


async def test_a_line_that_is_too_long_is_refused_and_those_after_it_can_be_read(
    client: Client,
) -> None:
    await client.call_tool("write_file", {"path": "l", "content": "x" * 500_000 + "\nshort\n"})
    first = await client.call_tool("read_file", {"path": "l"})
    second = await client.call_tool("read_file", {"path": "l", "start_line": 2})
    assert first.meta[ERROR_META_KEY]["reason"] == "too_large"
    assert second.structured_content["content"] == "short\n"


async def test_wrong_base64_is_refused(client: Client) -> None:
    result = await client.call_tool(
        "write_file", {"path": "b", "content": "not base64!", "encoding": "base64"}
    )
    assert result.is_error
    assert result.meta[ERROR_META_KEY]["code"] == "invalid_request"


async def test_a_tool_that_the_policy_does_not_list_is_not_permitted(client: Client) -> None:
    opened = await client.call_tool("open_session", {"policy": "strict"})
    session_id = opened.structured_content["session_id"]
    refused = await client.call_tool("execute_code", {"code": "1", "session_id": session_id})
    allowed = await client.call_tool(
        "write_file", {"path": "a", "content": "b", "session_id": session_id}
    )
    assert refused.is_error
    assert refused.meta[ERROR_META_KEY]["code"] == "not_permitted"
    assert "read_file" in words(refused)
    assert not allowed.is_error


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("execute_code", {"code": "1", "sesion_id": "x"}, "did you mean session_id"),
    ("execute_code", {}, "code is required"),
    ("execute_code", {"code": "a\0b"}, "NUL"),
    ("run_command", {"command": "echo '\ud800'"}, "surrogate"),
    ("execute_code", {"code": "x" * (MAX_CODE + 1)}, "write_file"),
    ("execute_code", {"code": 7}, "code must be text, not a number"),
    (
        "execute_code",
        {"code": "1", "timeout": -1},
        "timeout must be a number from 0 to 604800, not -1",
    ),
    ("execute_code", {"code": "1", "timeout": "nan"}, "number"),
    ("execute_code", {"code": "1", "wait": "inf"}, "number"),
    ("execute_code", {"code": "1", "wait": 10**9}, "wait must be a number from 0 to 3600"),
    ("execute_code", {"code": "1", "progress_interval": 0}, "number from 0.1 to 3600, not 0"),
    ("execute_code", {"code": "1", "kernel_id": "k" * 200}, "128"),
    ("open_session", {"policy": "../../x\0"}, "NUL"),
    ("open_session", {"reuse": "perhaps"}, "reuse must be true or false"),
    ("read_file", {"path": "x" * 5000}, "4,096"),
    ("read_file", {"path": ""}, "path must be text of 1 to"),
    ("read_file", {"path": "a\udfff"}, "surrogate"),
    ("write_file", {"path": "a", "content": "b", "encoding": "latin-1"}, "utf-8"),
    ("write_file", {"path": "a", "content": "b", "mode": "999"}, "octal"),
    ("list_files", {"max_depth": 99}, "max_depth must be a whole number from 1 to 16"),
    ("list_files", {"limit": 0}, "from 1 to 1000, not 0"),
    ("run_command", {"command": ""}, "of 1 to"),
    ("write_terminal", {"terminal_id": "t", "keys": ["x" * 99]}, "32"),
    ("resize_terminal", {"terminal_id": "t", "rows": 0, "cols": 80}, "from 1 to 500"),
]


@pytest.mark.parametrize(("tool", "arguments", "reason"), REFUSED)
async def test_a_wrong_argument_is_refused_before_anything_runs(
    client: Client, engine: FakeEngine, tool: str, arguments: dict[str, Any], reason: str
) -> None:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert "was not run" in words(result)
    assert reason in words(result)
    assert not engine.containers
    assert not any(ord(c) < 32 and c != "\n" for c in words(result))


WITH_NULLS: list[tuple[str, dict[str, Any]]] = [
    ("execute_code", {"code": "1", "session_id": None, "kernel_id": None, "timeout": None}),
    ("run_command", {"command": "say x", "cwd": None, "stdin": None, "wait": "null"}),
    ("list_files", {"path": None, "limit": None}),
    ("open_session", {"policy": None, "reuse": None}),
]


@pytest.mark.parametrize(("tool", "arguments"), WITH_NULLS)
async def test_null_for_an_optional_argument_means_left_out(
    client: Client, tool: str, arguments: dict[str, Any]
) -> None:
    assert not (await client.call_tool(tool, arguments)).is_error


async def test_null_for_a_required_argument_is_refused_as_missing(client: Client) -> None:
    result = await client.call_tool("execute_code", {"code": None})
    assert "code is required" in words(result)


async def test_what_clients_add_of_their_own_is_ignored_and_said(client: Client) -> None:
    own = {"toolCallId": "call_0B", "sessionId": "abc", "_meta": {"a": list(range(999))}}
    result = await client.call_tool("execute_code", {"code": "1 + 1", **own})
    plain = await client.call_tool("execute_code", {"code": "1 + 1"})
    assert not result.is_error
    assert result.structured_content["session_id"] == plain.structured_content["session_id"]
    refused = await client.call_tool("execute_code", {"code": "1", "wait": -1, **own})
    failed = await client.call_tool("execute_code", {"code": "1", "session_id": "none", **own})
    assert refused.is_error
    assert failed.is_error
    for told in (result, refused, failed):
        assert "ignored" in words(told)
        assert all(name in words(told) for name in own)
    assert "ignored" not in words(plain)


async def test_no_argument_of_a_tool_is_taken_for_a_clients_own(client: Client) -> None:
    for tool in (await client.list_tools()).tools:
        assert not [name for name in tool.input_schema["properties"] if is_foreign(name)]


AS_TEXT: list[tuple[str, dict[str, Any]]] = [
    ("execute_code", {"code": "1", "timeout": "5", "wait": "2.5"}),
    ("open_session", {"reuse": "true"}),
    ("inspect_code", {"code": "len", "detail_level": "1"}),
    ("list_files", {"limit": "5", "max_depth": " 2 "}),
    ("write_file", {"path": "~/a/b", "content": "x", "mode": "644"}),
    ("delete_file", {"path": "~/a", "recursive": "True"}),
]


async def test_numbers_and_booleans_may_come_as_text(client: Client) -> None:
    for tool, arguments in AS_TEXT:
        result = await client.call_tool(tool, arguments)
        assert not result.is_error, words(result)


async def test_a_result_is_found_with_the_session_it_named_and_with_no_other(
    client: Client,
) -> None:
    ran = (await client.call_tool("execute_code", {"code": "1"})).structured_content
    command = (await client.call_tool("run_command", {"command": "say x"})).structured_content
    for tool, key, told in (
        ("get_execution", "execution_id", ran),
        ("get_command", "command_id", command),
        ("stop_command", "command_id", command),
    ):
        asked = {key: told[key], "session_id": told["session_id"]}
        assert not (await client.call_tool(tool, asked)).is_error
        other = await client.call_tool(tool, {**asked, "session_id": "other"})
        assert other.meta[ERROR_META_KEY]["code"] == "not_found"


async def test_code_within_a_markdown_fence_runs_and_the_result_says_so(client: Client) -> None:
    fenced = await client.call_tool("execute_code", {"code": "```python\n40 + 2\n```\n"})
    bare = await client.call_tool("execute_code", {"code": "\ufeffx = 40\r\nx + 2\r\n"})
    for result in (fenced, bare):
        assert result.structured_content["text"] == "42"
    assert "fence" in words(fenced)
    assert "fence" not in words(bare)
    assert "fence" in fenced.structured_content["notes"][0]


async def test_a_tilde_is_the_home_folder(client: Client) -> None:
    await client.call_tool("write_file", {"path": "~/notes.txt", "content": "hi"})
    read = await client.call_tool("read_file", {"path": "notes.txt"})
    listed = await client.call_tool("list_files", {"path": "~"})
    await client.call_tool("move_file", {"source": "~/notes.txt", "target": "~/m.txt"})
    moved = await client.call_tool("stat_file", {"path": "m.txt"})
    literal = await client.call_tool("stat_file", {"path": "./~"})
    inside = await client.call_tool("run_command", {"command": "pwd", "cwd": "~"})
    assert read.structured_content["content"] == "hi"
    assert "notes.txt" in words(listed)
    assert not moved.is_error
    assert literal.meta[ERROR_META_KEY]["reason"] == "not_found"
    assert inside.structured_content["stdout"] == ".\n"  # the workspace, as the link says it


@pytest.mark.parametrize(
    "arguments",
    [
        {f"unknown_argument_{number}": "" for number in range(100_000)},
        {"code": "1", "timeout": list(range(100_000))},
        {"code": {str(number): [] for number in range(100_000)}},
        {"code": "1", "keys": [[]] * 100_000},
        {"x" * 1_000_000: 1},
    ],
)
async def test_a_great_many_wrong_arguments_are_refused_in_no_time(
    client: Client, arguments: dict[str, Any]
) -> None:
    began = time.thread_time()
    result = await client.call_tool("execute_code", arguments)
    taken_s = time.thread_time() - began
    assert "was not run" in words(result)
    assert len(words(result)) < 10_000
    assert taken_s < 1.5


async def test_what_takes_too_long_to_validate_is_given_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object, **__: object) -> None:
        while True:
            pass

    monkeypatch.setattr("sandbox.server.wording.difflib.get_close_matches", slow)
    result = await client.call_tool("execute_code", {"code": "1", "sesion_id": "x"})
    assert result.is_error
    assert result.meta[ERROR_META_KEY]["code"] == "too_much_work"


async def test_what_a_description_says_of_a_bound_is_the_bound(client: Client) -> None:
    told = {tool.name: tool for tool in (await client.list_tools()).tools}
    mib, kib = 1024 * 1024, 1024

    assert f"{MAX_READ_BYTES // kib} KiB" in str(told["read_file"].description)
    assert MAX_READ_BYTES % kib == 0
    assert f"{MAX_CONTENT // mib} MiB" in str(told["write_file"].description)
    assert f"{MAX_EDIT_BYTES // mib} MiB" in str(told["edit_file"].description)


@pytest.mark.parametrize("policy", ["../../x", "OFFLINE", "a/b", "x" * 100, "."])
async def test_a_policy_name_that_could_be_a_path_is_refused(
    client: Client, engine: FakeEngine, policy: str
) -> None:
    result = await client.call_tool("open_session", {"policy": policy})
    assert result.is_error
    assert result.meta[ERROR_META_KEY]["code"] == "policy_error"
    assert not engine.containers


@pytest.mark.parametrize("ends", [False, True])
async def test_a_result_is_not_answered_under_a_policy_without_that_tool(
    client: Client, manager: SessionManager, tmp_path: Path, ends: bool
) -> None:
    """Neither while its session is open nor when it has ended, and also when nobody knows."""
    own = tmp_path / "policies"
    (own / "mute.yaml").write_text(MUTE)
    manager.ownership.policies = load(resources.policies(), own)
    opened = await client.call_tool("open_session", {"policy": "mute"})
    session_id = opened.structured_content["session_id"]
    ran = await client.call_tool("execute_code", {"code": "1", "session_id": session_id})
    asked = {"execution_id": ran.structured_content["execution_id"]}
    if ends:
        await client.call_tool("close_session", {"session_id": session_id})
    refused = await client.call_tool("get_execution", asked)
    assert refused.meta[ERROR_META_KEY]["code"] == "not_permitted"
    assert "outputs" not in (refused.structured_content or {})


@pytest.mark.parametrize("is_changed", [False, True])
async def test_when_a_sessions_policy_is_known_no_longer_its_results_are_not_answered(
    client: Client, manager: SessionManager, tmp_path: Path, is_changed: bool
) -> None:
    path = tmp_path / "policies" / "talking.yaml"
    path.write_text(TALKING)
    manager.ownership.policies = load(resources.policies(), path.parent)
    opened = await client.call_tool("open_session", {"policy": "talking"})
    session_id = opened.structured_content["session_id"]
    ran = await client.call_tool("execute_code", {"code": "1", "session_id": session_id})
    await client.call_tool("close_session", {"session_id": session_id})
    if is_changed:
        path.write_text(TALKING.replace("sessions: 1", "sessions: 2"))
        manager.ownership.policies = load(resources.policies(), path.parent)
    told = await client.call_tool(
        "get_execution", {"execution_id": ran.structured_content["execution_id"]}
    )
    if is_changed:
        assert told.meta[ERROR_META_KEY]["code"] == "not_permitted"
    else:
        assert told.structured_content["status"] == "ok"


async def test_an_absent_policy_is_not_found(client: Client) -> None:
    result = await client.call_tool("open_session", {"policy": "ofline"})
    assert result.is_error
    assert result.meta[ERROR_META_KEY]["code"] == "not_found"
    assert "offline" in words(result)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("execute_code", {"code": "1", "session_id": "absent"}),
        ("get_session", {"session_id": "absent"}),
        ("close_session", {"session_id": "absent"}),
        ("list_kernels", {"session_id": "absent"}),
        ("run_command", {"command": "true", "session_id": "absent"}),
        ("read_file", {"path": "a", "session_id": "absent"}),
        ("get_execution", {"execution_id": "absent"}),
        ("get_command", {"command_id": "absent"}),
        ("stop_command", {"command_id": "absent"}),
        ("read_terminal", {"terminal_id": "absent"}),
        ("execute_code", {"code": "1", "kernel_id": "absent"}),
    ],
)
async def test_what_is_not_there_is_not_found(
    client: Client, tool: str, arguments: dict[str, Any]
) -> None:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.meta[ERROR_META_KEY]["code"] == "not_found"


async def test_opens_past_the_quota_are_refused_and_leave_nothing(
    client: Client, engine: FakeEngine
) -> None:
    results: list[Any] = []

    async def open_one() -> None:
        results.append(await client.call_tool("open_session", {"reuse": False}))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(open_one)
    opened = [result for result in results if not result.is_error]
    refused = [result for result in results if result.is_error]
    assert opened
    assert refused
    assert {result.meta[ERROR_META_KEY]["code"] for result in refused} == {"quota_exceeded"}
    assert len(engine.containers) == len(opened)


async def test_an_engine_that_is_down_is_named_and_found_again(
    client: Client, engine: FakeEngine
) -> None:
    engine.is_down = True
    down = await client.call_tool("execute_code", {"code": "1 + 1"})
    assert down.is_error
    assert down.meta[ERROR_META_KEY]["code"] == "engine_unavailable"
    engine.is_down = False
    back = await client.call_tool("execute_code", {"code": "1 + 1"})
    assert back.structured_content["status"] == "ok"


async def test_a_missing_image_is_named(client: Client, engine: FakeEngine) -> None:
    engine.images = frozenset()
    result = await client.call_tool("execute_code", {"code": "1"})
    assert result.is_error
    assert result.meta[ERROR_META_KEY]["code"] == "image_missing"


async def test_a_defect_of_ours_keeps_its_details_in_the_log(
    client: Client,
    manager: SessionManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(caller: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(manager, "list", broken)
    result = await client.call_tool("list_sessions", {})
    assert result.is_error
    assert "secret detail" not in words(result)
    assert "secret detail" in caplog.text


async def test_a_flood_of_output_fits_into_one_message_and_the_cut_is_stated(
    client: Client,
) -> None:
    result = await client.call_tool("execute_code", {"code": "flood(2000000)"})
    assert result.structured_content["truncated_bytes"] > 1_000_000
    assert len(json.dumps(result.structured_content)) < 600_000
    assert "left out" in words(result)


async def test_policies_are_told_in_words_with_their_keys(client: Client) -> None:
    listed = await client.call_tool("list_policies", {})
    assert listed.structured_content is not None
    found = {policy["name"]: policy for policy in listed.structured_content["policies"]}
    assert found["offline"]["is_default"]
    assert {"topic": "reaches", "text": "nothing", "rule": "network"} in found["offline"]["allows"]
    (image,) = [row for row in found["offline"]["allows"] if row["topic"] == "image"]
    assert image["text"].startswith("python: Python 3.")
    assert "git" in image["text"]
    assert {"strict", "package-index", "readonly-data"} <= set(found)
    assert listed.structured_content["problem"] == ""
    assert "offline (default): " in words(listed)


async def test_a_denied_connection_is_told_with_its_rule(client: Client) -> None:
    result = await client.call_tool("run_command", {"command": "connect api.example.com:443"})
    (denial,) = result.structured_content["denials"]
    assert denial.startswith("network: api.example.com:443 denied by network: none")
    assert "[network: api.example.com:443 denied by network: none" in words(result)


async def test_tightening_a_session_is_told_in_its_network(client: Client) -> None:
    result = await client.call_tool("tighten_session", {"network": "none"})
    assert result.structured_content["network"]["is_tightened"]
    refused = await client.call_tool("tighten_session", {})
    assert refused.is_error


async def test_two_clients_of_one_execution_both_see_every_line_and_the_same_result(
    desk: Desk,
) -> None:
    lines = [f"line {n}" for n in range(20)]
    code = "\n".join(f"print({line!r})\nsleep(0.02)" for line in lines)
    told: dict[str, list[str]] = {"first": [], "second": []}
    results: list[dict[str, Any]] = []

    async def follow(name: str, interval_s: float) -> None:
        async def hear(progress: float, total: float | None, message: str | None) -> None:
            told[name].append(message or "")

        async with Client(mcp_server(desk)) as client:
            asked = {"execution_id": execution_id, "wait": 9, "progress_interval": interval_s}
            result = await client.call_tool("get_execution", asked, progress_callback=hear)
        results.append(result.structured_content)

    async with Client(mcp_server(desk)) as client:
        began = await client.call_tool("execute_code", {"code": code, "wait": 0})
        execution_id = began.structured_content["execution_id"]
        with anyio.fail_after(15):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, "first", 0.1)
                tasks.start_soon(follow, "second", 5)

    for messages in told.values():
        seen = [line for line in "".join(messages).splitlines() if line.startswith("line")]
        assert seen == lines
    assert len(told["first"]) > len(told["second"]) == 1
    assert results[0] == results[1]
    assert results[0]["text"].splitlines() == lines


async def test_a_terminal_is_read_again_from_where_an_earlier_read_ended(client: Client) -> None:
    opened = await client.call_tool("open_terminal", {})
    where = {"terminal_id": opened.structured_content["terminal_id"]}
    first = (await client.call_tool("read_terminal", {**where, "wait": 1})).structured_content
    typed = {**where, "text": "echo hello", "keys": ["enter"], "wait": 1}
    new = (await client.call_tool("write_terminal", typed)).structured_content
    again = {**where, "after": first["position"]}
    same = (await client.call_tool("read_terminal", again)).structured_content
    nothing = (await client.call_tool("read_terminal", where)).structured_content

    assert new["new_text"] == same["new_text"] == "echo hello\nhello\n$ "
    assert new["position"] == same["position"] > first["position"]
    assert nothing["new_text"] == ""


async def test_what_ran_is_listed_for_who_has_no_ids(client: Client) -> None:
    nothing = await client.call_tool("list_executions", {})
    assert "Nothing ran" in words(nothing)
    ran = (await client.call_tool("execute_code", {"code": "print(1)"})).structured_content
    await client.call_tool("open_session", {"policy": "coding"})
    for asked in ({}, {"session_id": ran["session_id"]}):
        found = await client.call_tool("list_executions", asked)
        (line,) = found.structured_content["executions"]
        assert line["execution_id"] == ran["execution_id"]
        assert (line["status"], line["state"], line["code"]) == ("ok", "kept", "print(1)")
        assert ran["execution_id"] in words(found)
    other = await client.call_tool("list_executions", {"session_id": "other"})
    assert other.meta[ERROR_META_KEY]["code"] == "not_found"


async def test_what_a_policy_does_not_let_one_ask_for_is_not_listed(client: Client) -> None:
    opened = await client.call_tool("open_session", {"policy": "strict"})
    asked = {"session_id": opened.structured_content["session_id"]}
    refused = await client.call_tool("list_executions", asked)
    assert refused.meta[ERROR_META_KEY]["code"] == "not_permitted"


async def test_a_session_is_made_a_notebook_or_a_script_off_the_loop(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[threading.Thread] = []

    def noting(make: Any) -> Any:
        def made(notebook: Any) -> Any:
            where.append(threading.current_thread())
            return make(notebook)

        return made

    for name in ("write_ipynb", "to_script"):
        monkeypatch.setattr(notebooks, name, noting(getattr(notebooks, name)))
    await client.call_tool("execute_code", {"code": "x = 1"})
    for kind in ("ipynb", "py"):
        result = await client.call_tool("export_session", {"format": kind})
        assert result.structured_content is not None
        assert result.structured_content["name"] == f"session.{kind}"
    assert len(where) == 2
    assert threading.main_thread() not in where


@pytest.mark.parametrize("policy", ["silent", "asking"])
async def test_no_more_is_exported_than_can_be_asked_for_one_by_one(
    client: Client, manager: SessionManager, tmp_path: Path, policy: str
) -> None:
    own = tmp_path / "policies"
    (own / f"{policy}.yaml").write_text(SILENT if policy == "silent" else ASKING)
    manager.ownership.policies = load(resources.policies(), own)
    opened = await client.call_tool("open_session", {"policy": policy})
    refused = await client.call_tool(
        "export_session", {"session_id": opened.structured_content["session_id"]}
    )
    assert refused.meta[ERROR_META_KEY]["code"] == "not_permitted"
    assert "get_execution" in words(refused)


async def test_what_can_be_done_about_something_missing_is_said_each_time_it_is_asked_for(
    client: Client,
) -> None:
    code = "raise ModuleNotFoundError(\"No module named 'humanize'\")"
    ran = (await client.call_tool("execute_code", {"code": code})).structured_content
    again = {"execution_id": ran["execution_id"]}
    asked = (await client.call_tool("get_execution", again)).structured_content
    assert asked["reason"] == ran["reason"]
    ran = (await client.call_tool("run_command", {"command": "xyzzy 1"})).structured_content
    again = {"command_id": ran["command_id"]}
    asked = (await client.call_tool("get_command", again)).structured_content
    assert asked["reason"] == ran["reason"]
