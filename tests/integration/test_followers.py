"""Two MCP clients follow one execution, one terminal and one command, and each sees every line."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest
from mcp import Client

pytestmark = pytest.mark.anyio

LINES = 20
EVERY_S = 1.0
CODE = f"import time\nfor n in range({LINES}):\n    print('line', n, flush=True)\n    time.sleep(1)"
SHELL = f"for n in $(seq 0 {LINES - 1}); do echo line $n; sleep 1; done; echo all was said"


def lines(text: str) -> list[int]:
    """The numbers of the lines in it, in their order."""
    return [int(n) for n in re.findall(r"line (\d+)", text)]


async def test_two_clients_follow_one_execution(connect: Any) -> None:
    told: dict[str, list[str]] = {"first": [], "second": []}
    results: dict[str, Any] = {}

    async def follow(name: str, client: Client, execution_id: str) -> None:
        async def hear(progress: float, total: float | None, message: str | None) -> None:
            told[name].append(message or "")

        results[name] = await client.call_tool(
            "get_execution",
            {"execution_id": execution_id, "wait": 50, "progress_interval": EVERY_S},
            progress_callback=hear,
        )

    async with connect(key="followed") as first, connect("legacy", key="beside") as second:
        began = await first.call_tool("execute_code", {"code": CODE, "wait": 0})
        execution_id = began.structured_content["execution_id"]
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, "first", first, execution_id)
                tasks.start_soon(follow, "second", second, execution_id)

    for name in told:
        shown = results[name].structured_content
        assert shown["status"] == "ok"
        assert lines(shown["text"]) == list(range(LINES))
        assert lines("".join(told[name])) == list(range(LINES)), told[name]


async def test_two_clients_follow_one_terminal(connect: Any) -> None:
    seen = {"first": "", "second": ""}

    async def follow(name: str, client: Client, terminal: dict[str, Any]) -> None:
        while "all was said" not in seen[name].replace(SHELL, ""):
            view = (
                await client.call_tool("read_terminal", {**terminal, "wait": 2})
            ).structured_content
            assert view["dropped_bytes"] == 0
            seen[name] += view["new_text"]

    async with connect(key="followed") as first, connect("legacy", key="beside") as second:
        opened = (await first.call_tool("open_terminal", {"cols": 200})).structured_content
        (session,) = (await first.call_tool("list_sessions", {})).structured_content["sessions"]
        terminal = {"terminal_id": opened["terminal_id"], "session_id": session["session_id"]}
        typed = await first.call_tool(
            "write_terminal", {**terminal, "text": SHELL, "keys": ["enter"]}
        )
        seen["first"] += typed.structured_content["new_text"]
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, "first", first, terminal)
                tasks.start_soon(follow, "second", second, terminal)

    for name, text in seen.items():
        assert lines(text) == list(range(LINES)), name


async def test_two_clients_follow_one_command(connect: Any) -> None:
    results: list[Any] = []

    async def follow(client: Client, command_id: str) -> None:
        results.append(
            await client.call_tool("get_command", {"command_id": command_id, "wait": 50})
        )

    async with connect(key="followed") as first, connect("legacy", key="beside") as second:
        began = await first.call_tool("run_command", {"command": SHELL, "wait": 0})
        assert began.structured_content["status"] == "running"
        command_id = began.structured_content["command_id"]
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, first, command_id)
                tasks.start_soon(follow, second, command_id)

    for result in results:
        assert result.structured_content["status"] == "exited"
        assert lines(result.structured_content["stdout"]) == list(range(LINES))
