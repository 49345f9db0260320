"""``sandbox mcp``: the official client starts it as desktop clients do."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters

from sandbox.container.labels import LABEL_OWNER
from sandbox.errors import ConfigError
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.server.scopes import TOOL_SCOPES
from sandbox.sessions import slots
from sandbox.toolsets import TOOLSETS

from ..support.calls import greeting
from ..support.served import environment

pytestmark = pytest.mark.anyio

ERAS = ["2026-07-28", "legacy"]
INITIALIZE = greeting("2025-06-18")


@pytest.fixture
def server(tmp_path: Path) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable, args=["-m", "sandbox", "mcp"], env=environment(tmp_path / "state")
    )


async def containers(engine: DockerRuntime, state: Path) -> list[str]:
    """The names of the containers that the controllers of a state folder own."""
    found: list[str] = []
    for owner in state.glob("controllers/*/owner"):
        labels = {LABEL_OWNER: owner.read_text().strip()}
        found += [info.name for info in await engine.list(labels)]
    return found


@pytest.mark.parametrize("era", ERAS)
async def test_each_era_runs_code_and_leaves_nothing_behind(
    server: StdioServerParameters, engine: DockerRuntime, tmp_path: Path, era: str
) -> None:
    async with Client(server, mode=era) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == set(TOOL_SCOPES)
        await client.call_tool("execute_code", {"code": "x = 41"})
        result = await client.call_tool("execute_code", {"code": "print(x + 1)"})
        assert len(await containers(engine, tmp_path / "state")) == 1
    assert result.structured_content["text"] == "42"
    assert await containers(engine, tmp_path / "state") == []


async def test_calls_are_taken_as_clients_and_models_write_them(
    server: StdioServerParameters,
) -> None:
    code = "```python\nfor text in ('a = 1', 'b = 2'):\n    print(text, end='\\r\\n', "
    code += "file=open('w.txt', 'a', newline=''))\n```"
    async with Client(server) as client:
        own = {"session_id": None, "timeout": "30", "toolCallId": "call_1"}
        ran = await client.call_tool("execute_code", {"code": code, **own})
        assert ran.structured_content["status"] == "ok"
        told = {"path": "~/w.txt", "old_string": "a = 1\nb", "new_string": "a = 9\nb"}
        assert not (await client.call_tool("edit_file", told)).is_error
        shown = {"command": "od -c ~/w.txt && pwd", "cwd": "~", "stdin": None}
        result = await client.call_tool("run_command", shown)
        assert "9  \\r  \\n   b" in result.structured_content["stdout"]
        assert result.structured_content["stdout"].endswith("/workspace\n")


async def test_a_few_tools_are_offered_when_few_are_asked_for(
    server: StdioServerParameters,
) -> None:
    server.args.extend(["--tools", "code"])
    async with Client(server) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        ran = await client.call_tool("execute_code", {"code": "6 * 7"})
        with pytest.raises(MCPError, match="Unknown tool: run_command"):
            await client.call_tool("run_command", {"command": "true"})
    assert set(tools) == set(TOOLSETS["code"])
    assert ran.structured_content["status"] == "ok"


async def test_two_desktop_clients_have_sessions_of_their_own(
    server: StdioServerParameters,
) -> None:
    async with Client(server) as one, Client(server) as two:
        first = await one.call_tool("execute_code", {"code": "x = 1"})
        second = await two.call_tool("execute_code", {"code": "x"})
        assert second.structured_content["error"]["name"] == "NameError"
        foreign = {"session_id": first.structured_content["session_id"]}
        assert (await two.call_tool("get_session", foreign)).is_error


async def test_standard_output_carries_nothing_but_the_protocol(tmp_path: Path) -> None:
    with anyio.fail_after(60):
        done = await anyio.run_process(
            [sys.executable, "-m", "sandbox", "mcp", "--log-level", "debug"],
            input=b"not json\n" + json.dumps(INITIALIZE).encode() + b"\n" + b"\xff\xfe\n[]\n",
            env=environment(tmp_path / "state"),
        )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)
    (greeting,) = [answer for answer in answers if answer.get("id") == 1]
    assert greeting["result"]["serverInfo"]["name"] == "sandbox"
    assert b"serving MCP" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_closes_the_sessions(
    engine: DockerRuntime, tmp_path: Path, number: signal.Signals
) -> None:
    call = {"name": "open_session", "arguments": {}}
    messages = (
        INITIALIZE,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
    )
    async with await anyio.open_process(
        [sys.executable, "-m", "sandbox", "mcp"], env=environment(tmp_path / "state")
    ) as process:
        assert process.stdin
        assert process.stdout
        for message in messages:
            await process.stdin.send(json.dumps(message).encode() + b"\n")
        with anyio.fail_after(90):
            said = b""
            while b'"id":2' not in said:
                said += await process.stdout.receive()
            assert len(await containers(engine, tmp_path / "state")) == 1
            process.send_signal(number)
            await process.wait()
    assert await containers(engine, tmp_path / "state") == []


def attached(state: Path, *name: str) -> StdioServerParameters:
    words = ["-m", "sandbox", "mcp", "--attach", *name]
    return StdioServerParameters(command=sys.executable, args=words, env=environment(state))


async def close_what_is_kept(state: Path, *name: str) -> None:
    async with Client(attached(state, *name)) as client:
        await client.call_tool("close_session", {})


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_is_started_for_each_call_keeps_variables_where_it_attaches(
    engine: DockerRuntime, tmp_path: Path, era: str
) -> None:
    state = tmp_path / "state"
    for number in range(6):
        code = "x = 1" if number == 0 else "x += 1; print('x is', x)"
        async with Client(attached(state), mode=era) as client:
            result = await client.call_tool("execute_code", {"code": code})
        told = "\n".join(getattr(each, "text", "") for each in result.content)
        assert number == 0 or f"x is {number + 1}\n" in told
        assert ("goes on with session" in told) == (number > 0)
    assert len(await containers(engine, state)) == 1
    async with Client(attached(state, "other"), mode=era) as client:
        result = await client.call_tool("execute_code", {"code": "print(x)"})
        assert "NameError" in str(result.content)
    await close_what_is_kept(state)
    await close_what_is_kept(state, "other")
    assert await containers(engine, state) == []


async def test_a_name_is_for_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "ATTACH_WAIT_S", 0.2)
    async with Client(attached(tmp_path / "state", "mine")) as client:
        await client.list_tools()
        with pytest.raises(ConfigError) as caught:
            await slots.attach_slot(tmp_path / "state", "mine")
    assert "--attach NAME" in caught.value.remedy
    (await slots.attach_slot(tmp_path / "state", "mine")).release()


async def test_a_signal_leaves_what_is_attached(engine: DockerRuntime, tmp_path: Path) -> None:
    state = tmp_path / "state"
    process = await anyio.open_process(
        [sys.executable, "-m", "sandbox", "mcp", "--attach"],
        env=environment(state),
        stderr=None,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked = {"name": "execute_code", "arguments": {"code": "x = 41"}}
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": asked}
    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    for message in (INITIALIZE, initialized, call):
        await process.stdin.send(json.dumps(message).encode() + b"\n")
    heard = b""
    with anyio.fail_after(60):
        while b'"id":2' not in heard:
            heard += await process.stdout.receive()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    async with Client(attached(state)) as client:
        result = await client.call_tool("execute_code", {"code": "print(x + 1)"})
        assert "42" in str(result.content)
        await client.call_tool("close_session", {})
    assert await containers(engine, state) == []


@pytest.mark.parametrize("era", ERAS)
async def test_giving_up_interrupts_the_cell(server: StdioServerParameters, era: str) -> None:
    async with Client(server, mode=era) as client:
        await client.call_tool("execute_code", {"code": "import time"})
        with anyio.move_on_after(1):
            await client.call_tool("execute_code", {"code": "time.sleep(300)"})
        with anyio.fail_after(20):
            await client.call_tool("execute_code", {"code": "1"})
        listed = await client.call_tool("list_executions", {})
    latest = [each["status"] for each in listed.structured_content["executions"]]
    assert latest == ["ok", "interrupted", "ok"]
