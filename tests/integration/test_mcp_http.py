"""The official client over HTTP, in both protocol eras, against a real engine."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import MCPError

from ..support.calls import written

pytestmark = pytest.mark.anyio

ERAS = ["2026-07-28", "legacy"]
PLOT = """\
import base64
from IPython.display import display, Image
display(Image(data=base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="), format="png"))
"""


def words(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def output(result: Any) -> str:
    return written(result.structured_content)


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_each_era_lists_the_tools_and_keeps_variables(connect: Any, era: str) -> None:
    async with connect(era) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert {"execute_code", "run_command", "open_terminal", "read_file"} <= tools
        await client.call_tool("execute_code", {"code": "x = 6"})
        result = await client.call_tool("execute_code", {"code": "x * 7"})
    assert result.structured_content["text"] == "42"
    assert result.structured_content["status"] == "ok"


async def test_the_eras_are_what_they_say(connect: Any) -> None:
    async with connect("2026-07-28") as modern, connect("legacy") as legacy:
        assert modern.protocol_version == "2026-07-28"
        assert legacy.protocol_version == "2025-11-25"


async def test_a_picture_comes_as_an_image(connect: Any, era: str) -> None:
    async with connect(era) as client:
        result = await client.call_tool("execute_code", {"code": PLOT})
    assert [block.type for block in result.content] == ["text", "text", "image"]
    assert result.content[2].mime_type == "image/png"
    assert result.content[0].text.startswith("[picture 1: image/png, ")
    assert result.content[2].data not in json.dumps(result.structured_content)


async def test_an_error_is_a_failed_call_without_escape_codes(connect: Any, era: str) -> None:
    async with connect(era) as client:
        result = await client.call_tool("execute_code", {"code": "1 / 0"})
    assert result.is_error
    assert result.structured_content["error"]["name"] == "ZeroDivisionError"
    assert "\x1b" not in words(result)


async def test_progress_tells_what_a_cell_writes(connect: Any, era: str) -> None:
    told: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    code = "import time\nfor n in range(6):\n    print('step', n, flush=True)\n    time.sleep(0.2)"
    async with connect(era) as client:
        result = await client.call_tool(
            "execute_code", {"code": code, "progress_interval": 0.2}, progress_callback=hear
        )
    assert result.structured_content["status"] == "ok"
    assert any("step 0" in message for message in told)


async def test_giving_up_in_so_many_words_interrupts_the_cell_and_keeps_the_variables(
    connect: Any,
) -> None:
    async with connect("legacy") as client:
        await client.call_tool("execute_code", {"code": "import time\nkept = 'here'"})
        with anyio.move_on_after(1):
            await client.call_tool("execute_code", {"code": "time.sleep(300)"})
        with anyio.fail_after(20):
            after = await client.call_tool("execute_code", {"code": "print(kept)"})
    assert output(after) == "here\n"


async def test_long_work_is_polled_by_its_id_from_another_connection(connect: Any) -> None:
    async with connect("2026-07-28", key="long") as first:
        began = await first.call_tool(
            "execute_code", {"code": "import time\ntime.sleep(1)\nprint('done')", "wait": 0.2}
        )
    assert began.structured_content["status"] == "running"
    async with connect("legacy", key="another") as second:
        with anyio.fail_after(30):
            ended = await second.call_tool(
                "get_execution",
                {"execution_id": began.structured_content["execution_id"], "wait": 20},
            )
    assert output(ended) == "done\n"


async def test_commands_say_what_they_wrote_and_how_they_ended(connect: Any) -> None:
    async with connect() as client:
        done = await client.call_tool(
            "run_command", {"command": "cat; echo err >&2; exit 3", "stdin": "typed"}
        )
        slow = await client.call_tool("run_command", {"command": "sleep 60", "timeout": 0.5})
    assert done.structured_content["stdout"] == "typed"
    assert done.structured_content["stderr"] == "err\n"
    assert done.structured_content["exit_code"] == 3
    assert not done.is_error
    assert slow.structured_content["status"] == "timeout"
    assert slow.is_error


async def test_a_terminal_shows_a_program_that_asks(connect: Any) -> None:
    async with connect() as client:
        opened = await client.call_tool("open_terminal", {})
        terminal_id = opened.structured_content["terminal_id"]
        where = {"terminal_id": terminal_id}

        async def shows(sign: str) -> str:
            with anyio.fail_after(60):
                while True:
                    view = await client.call_tool("read_terminal", {**where, "wait": 1})
                    screen = "\n".join(view.structured_content["screen"])
                    if sign in screen:
                        return screen

        await shows("$")
        await client.call_tool("write_terminal", {**where, "text": "python3 -q", "keys": ["enter"]})
        await shows(">>>")  # what is typed before is thrown away when it takes the terminal
        typed = {**where, "text": "print(6 * 7)", "keys": ["enter"]}
        await client.call_tool("write_terminal", typed)
        shown = await shows("\n42")
        closed = await client.call_tool("close_terminal", where)
    assert "\x1b" not in shown
    assert not closed.is_error


async def test_text_of_several_lines_is_pasted_into_a_terminal_and_its_answer_awaited(
    connect: Any,
) -> None:
    made = "all:\n\techo hi\n"
    async with connect() as client:
        opened = await client.call_tool("open_terminal", {})
        text = f"cat > Makefile <<'EOF'\n{made}EOF\nsleep 1\n"
        typed = {"terminal_id": opened.structured_content["terminal_id"], "text": text, "wait": 30}
        view = await client.call_tool("write_terminal", typed)
        read = await client.call_tool("read_file", {"path": "Makefile"})
    assert view.structured_content["wait_ended"] == "prompt"
    assert "[the prompt is back]" in view.content[0].text
    assert read.structured_content["content"] == made


async def test_conversations_share_a_terminal_and_each_reads_all_of_it(connect: Any) -> None:
    lines = [f"line {n}" for n in range(20)]
    seen = {"one": "", "two": ""}

    async def read(name: str, client: Any, where: dict[str, Any]) -> None:
        while "the end" not in seen[name]:
            view = await client.call_tool("read_terminal", {**where, "wait": 1})
            assert view.structured_content["dropped_bytes"] == 0
            seen[name] += view.structured_content["new_text"]

    async with connect(key="one") as one, connect(key="two") as two:
        opened = await one.call_tool("open_terminal", {})
        session = (await one.call_tool("get_session", {})).structured_content["session_id"]
        where = {"terminal_id": opened.structured_content["terminal_id"], "session_id": session}
        code = "for n in $(seq 0 19); do echo line $n; sleep 0.05; done; echo the''\" end\""
        await one.call_tool("write_terminal", {**where, "text": code, "keys": ["enter"], "wait": 0})
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, "one", one, where)
                tasks.start_soon(read, "two", two, where)
    assert [line for line in seen["two"].splitlines() if line in lines] == lines
    assert seen["two"].endswith(seen["one"])  # what it wrote before, "one" had read already


async def test_conversations_follow_one_execution_and_each_is_told_all_of_it(connect: Any) -> None:
    lines = [f"line {n}\n" for n in range(20)]
    code = "import time\nfor n in range(20):\n    print('line', n)\n    time.sleep(0.1)"
    told: dict[str, str] = {"one": "", "two": ""}
    results: list[Any] = []

    async def follow(name: str, client: Any, interval_s: float) -> None:
        async def hear(progress: float, total: float | None, message: str | None) -> None:
            told[name] += message or ""

        asked = {"execution_id": execution_id, "wait": 30, "progress_interval": interval_s}
        result = await client.call_tool("get_execution", asked, progress_callback=hear)
        results.append(result.structured_content)

    async with connect(key="one") as one, connect(key="two") as two:
        began = await one.call_tool("execute_code", {"code": code, "wait": 0})
        execution_id = began.structured_content["execution_id"]
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, "one", one, 0.3)
                tasks.start_soon(follow, "two", two, 0.7)
    for text in told.values():
        assert re.findall(r"line \d+\n", text) == lines
    assert results[0] == results[1]


async def test_each_conversation_has_a_default_session_of_its_own(connect: Any) -> None:
    async with connect(key="one") as one, connect(key="two") as two:
        await one.call_tool("execute_code", {"code": "x = 1"})
        other = await two.call_tool("execute_code", {"code": "x"})
        again = await one.call_tool("execute_code", {"code": "x"})
    assert other.structured_content["error"]["name"] == "NameError"
    assert again.structured_content["status"] == "ok"


async def test_a_flood_of_output_reaches_the_client_bounded(connect: Any, era: str) -> None:
    async with connect(era) as client:
        result = await client.call_tool("execute_code", {"code": "print('é' * 20_000_000)"})
    assert result.structured_content["status"] == "ok"
    assert result.structured_content["truncated_bytes"] > 10_000_000


async def test_opening_twice_at_once_gives_one_default_session(connect: Any) -> None:
    found: list[str] = []
    async with connect(key="twins") as client:

        async def ask() -> None:
            result = await client.call_tool("execute_code", {"code": "1"})
            found.append(result.structured_content["session_id"])

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
    assert len(set(found)) == 1


BAD_BODIES: list[tuple[bytes, int]] = [
    (b"{", 400),
    (b"[]", 400),
    (b'{"jsonrpc": "2.0"}', 400),
    (b"\xff" * 100, 400),
    (b"[" * 200_000, 413),
    (b" " * (5 * 1024 * 1024), 413),
]


@pytest.mark.parametrize(("body", "status"), BAD_BODIES)
@pytest.mark.parametrize("version", ["2026-07-28", "2025-06-18"])
async def test_a_bad_body_is_refused_and_the_server_goes_on(
    clean: Any, version: str, body: bytes, status: int
) -> None:
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": version,
    }
    async with clean.http() as http:
        answer = await http.post("/mcp/v1", content=body, headers=headers)
        assert answer.status_code == status
        assert (await http.get("/mcp/v1/sessions")).json() == {"sessions": []}


async def test_five_megabytes_of_code_are_refused_whichever_way_they_come(connect: Any) -> None:
    async with connect("2026-07-28") as client:
        refused = await client.call_tool("execute_code", {"code": "#" * 2_000_000})
        assert refused.is_error
        assert "1048576" in words(refused)
        with pytest.raises(MCPError):
            await client.call_tool("execute_code", {"code": "#" * 5_000_000})
        assert not (await client.call_tool("list_sessions", {})).is_error


@pytest.mark.parametrize("token", [None, "wrong", "Bearer"])
async def test_nobody_gets_in_without_the_token(clean: Any, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=clean.base, headers=headers) as http:
        for method, path in (
            ("POST", "/mcp/v1"),
            ("GET", "/mcp/v1"),
            ("POST", "/mcp/v1%0A"),
            ("GET", "/mcp/v1/sessions"),
            ("PUT", "/mcp/v1/sessions/x/files/y"),
        ):
            assert (await http.request(method, path)).status_code == 401
        assert (await http.get("/healthz")).json() == {"status": "ok"}


async def test_a_page_of_another_site_is_refused(clean: Any) -> None:
    async with clean.http() as http:
        rebound = await http.get("/mcp/v1/sessions", headers={"Host": "evil.example"})
        foreign = await http.get("/mcp/v1/sessions", headers={"Origin": "https://evil.example"})
    assert (rebound.status_code, foreign.status_code) == (421, 403)


Run = Callable[..., AbstractContextManager[Any]]


async def test_ctrl_c_answers_who_waits_keeps_the_cell_and_the_next_server_finds_it(
    run_server: Run, tmp_path: Path
) -> None:
    code = "import time\nprint('begun', flush=True)\ntime.sleep(12)\nprint('ended')"
    answers: list[Any] = []
    with run_server(tmp_path) as first:
        async with first.client("2026-07-28") as client:
            await client.list_tools()
            begun = anyio.Event()

            async def hear(progress: float, total: float | None, message: str | None) -> None:
                if "begun" in (message or ""):
                    begun.set()

            async def ask() -> None:
                wanted = {"code": code, "progress_interval": 0.2}
                answers.append(
                    await client.call_tool("execute_code", wanted, progress_callback=hear)
                )

            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask)
                    await begun.wait()
                    os.kill(first.process.pid, signal.SIGINT)
        assert first.process.wait(30) == 0
    (waiting,) = answers
    assert waiting.structured_content["status"] == "running"
    assert "stay for the next controller" in first.log.read_text()
    with run_server(tmp_path) as second:
        async with second.client("2026-07-28") as client:
            with anyio.fail_after(60):
                ended = await client.call_tool(
                    "get_execution",
                    {"execution_id": waiting.structured_content["execution_id"], "wait": 50},
                )
            await client.call_tool("close_session", {})
    assert ended.structured_content["status"] == "ok"
    assert output(ended) == "begun\nended\n"


async def test_a_second_server_of_the_same_state_is_refused_with_a_remedy(
    clean: Any,
) -> None:
    done = await anyio.run_process(
        [sys.executable, "-m", "sandbox", "serve", "--port", "0"],
        env={**os.environ, "SANDBOX_STATE_DIR": str(clean.state)},
        check=False,
    )
    assert done.returncode == 2
    assert str(clean.process.pid) in done.stderr.decode()
