"""A person behind the official client is asked, over HTTP and stdio, in both protocol eras."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

from ..support.served import Served, close_all, environment, serve

pytestmark = pytest.mark.anyio

POLICIES = {
    "careful": """\
version: 1
description: A person agrees to commands and to the one address.
network:
  allow:
    - {address: here, ports: [PORT], http: true, ask: true}
approve: {tools: [run_command, write_file], timeout: 20s}
""",
    "hasty": """\
version: 1
description: Nobody has much time, and nothing is remembered.
network:
  allow:
    - {address: here, ports: [PORT], http: true, ask: true}
approve: {tools: [run_command], timeout: 2s, remember: never}
""",
}
ERAS = ["2026-07-28", "legacy"]
FETCH = """
import http.client
connection = http.client.HTTPConnection("127.0.0.1", 3128, timeout=60)
connection.request("GET", "http://127.0.0.1:PORT/fetched")
answer = connection.getresponse()
print(answer.status, answer.reason)
"""


class Target:
    """A server of this machine, and what was asked of it."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target.paths.append(self.path)
                self.send_response(200, "Reached")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@dataclass
class Person:
    """What is answered to each question, and what was asked."""

    answers: list[Any] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    is_patient: bool = True

    async def __call__(self, _context: Any, params: Any) -> ElicitResult:
        self.asked.append(params.message)
        if not self.answers:
            await anyio.sleep(60)
        return self.answers.pop(0)


def yes(**content: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=content)


NO = ElicitResult(action="decline")


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    target = Target()
    thread = threading.Thread(target=target.server.serve_forever)
    thread.start()
    yield target
    target.server.shutdown()
    thread.join()
    target.server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, target: Target) -> Path:
    folder = tmp_path_factory.mktemp("asking")
    (folder / "policies").mkdir()
    for name, text in POLICIES.items():
        (folder / f"policies/{name}.yaml").write_text(text.replace("PORT", str(target.port)))
    return folder


@pytest.fixture(scope="module")
def variables(folder: Path) -> dict[str, str]:
    return {"SANDBOX_POLICIES": str(folder / "policies"), "SANDBOX_ADDRESSES": "here=127.0.0.1"}


@pytest.fixture(scope="module")
def asking(folder: Path, variables: dict[str, str]) -> Iterator[Served]:
    with serve(folder, **variables) as running:
        yield running
        close_all(running)


@pytest.fixture(params=["http", "stdio"])
def connect(
    request: pytest.FixtureRequest,
    asking: Served,
    variables: dict[str, str],
    tmp_path: Path,
) -> Callable[..., Any]:
    """Makes clients with a person behind them, or nobody."""

    @asynccontextmanager
    async def connected(era: str, person: Person | None) -> AsyncIterator[Client]:
        if request.param == "stdio":
            command = StdioServerParameters(
                command=sys.executable,
                args=["-m", "sandbox", "mcp"],
                env=environment(tmp_path / "state", **variables),
            )
            async with Client(
                stdio_client(command), mode=era, elicitation_callback=person
            ) as client:
                yield client
            return
        async with asking.http() as http:
            transport = streamable_http_client(asking.url, http_client=http)
            async with Client(transport, mode=era, elicitation_callback=person) as client:
                yield client
        close_all(asking)

    return connected


async def opened(client: Client, policy: str = "careful") -> str:
    result = await client.call_tool("open_session", {"policy": policy, "reuse": False})
    return str(result.structured_content["session_id"])


def approvals(state: Path) -> list[tuple[str, str]]:
    lines = [
        json.loads(line)
        for path in sorted(state.rglob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    found = [line.get("entry", line) for line in lines]
    return [(e["decision"], e["subject"]) for e in found if e.get("kind") == "approval"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_tool_runs_once_after_a_yes_and_not_after_a_no(connect: Any, era: str) -> None:
    person = Person([yes(), NO])
    async with connect(era, person) as client:
        session = await opened(client)
        count = {"command": "echo run >> times; wc -l < times", "session_id": session}
        first = await client.call_tool("run_command", count)
        assert first.structured_content["stdout"] == "1\n"
        refused = await client.call_tool("run_command", count)
        assert refused.is_error
        assert refused.meta["io.sandbox/error"]["code"] == "not_permitted"
        assert "declined" in refused.content[0].text
        times = await client.call_tool("read_file", {"path": "times", "session_id": session})
    assert times.structured_content["content"] == "run\n"
    assert len(person.asked) == 2
    assert "  | echo run >> times; wc -l < times" in person.asked[0]
    assert "careful" in person.asked[0]


@pytest.mark.parametrize("era", ERAS)
async def test_a_lasting_yes_is_not_asked_again_for_that_tool(connect: Any, era: str) -> None:
    person = Person([yes(remember=True), yes()])
    async with connect(era, person) as client:
        session = await opened(client)
        for _ in range(3):
            result = await client.call_tool(
                "run_command", {"command": "true", "session_id": session}
            )
            assert not result.is_error
        arguments = {"path": "f", "content": "x", "session_id": session}
        assert not (await client.call_tool("write_file", arguments)).is_error
    assert len(person.asked) == 2


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_cannot_ask_gets_a_denial_that_says_so(connect: Any, era: str) -> None:
    async with connect(era, None) as client:
        session = await opened(client)
        result = await client.call_tool("run_command", {"command": "true", "session_id": session})
    assert result.is_error
    assert "no elicitation" in result.content[0].text


@pytest.mark.parametrize("era", ERAS)
async def test_no_answer_is_a_no(connect: Any, era: str) -> None:
    person = Person()
    async with connect(era, person) as client:
        session = await opened(client, "hasty")
        with anyio.move_on_after(15) as scope:
            result = await client.call_tool(
                "run_command", {"command": "touch ran", "session_id": session}
            )
            assert result.is_error  # in the era of handshakes the call itself is told
            assert "nobody answered" in result.content[0].text
        assert scope.cancelled_caught == (era != "legacy")
        listed = await client.call_tool("list_files", {"session_id": session, "pattern": "ran"})
    assert listed.structured_content["entries"] == []
    assert len(person.asked) == 1


@pytest.mark.parametrize("era", ERAS)
async def test_a_connection_waits_for_a_yes_while_its_cell_runs_once(
    connect: Any, era: str, target: Target
) -> None:
    person = Person([yes(remember=True)])
    target.paths.clear()
    fetch = FETCH.replace("PORT", str(target.port))
    async with connect(era, person) as client:
        session = await opened(client)
        code = f"times = globals().get('times', 0) + 1\n{fetch}{fetch}print(times)"
        result = await client.call_tool("execute_code", {"code": code, "session_id": session})
    assert result.structured_content["status"] == "ok"
    assert result.structured_content["text"] == "200 Reached\n200 Reached\n1"
    assert target.paths == ["/fetched", "/fetched"]
    assert len(person.asked) == 1
    assert f"127.0.0.1:{target.port}" in person.asked[0]
    assert "GET /fetched" in person.asked[0]


@pytest.mark.parametrize("era", ERAS)
async def test_a_connection_that_is_declined_is_a_denial_in_the_result(
    connect: Any, era: str, target: Target
) -> None:
    person = Person([NO])
    target.paths.clear()
    async with connect(era, person) as client:
        session = await opened(client)
        code = FETCH.replace("PORT", str(target.port))
        result = await client.call_tool("execute_code", {"code": code, "session_id": session})
        again = await client.call_tool("execute_code", {"code": code, "session_id": session})
    assert target.paths == []
    assert "403" in result.structured_content["text"]
    assert "declined" in result.structured_content["denials"][0]
    assert "declined" in again.structured_content["denials"][0]
    assert len(person.asked) == 1  # code that tries again at once does not flood the person


@pytest.mark.parametrize("era", ERAS)
async def test_a_connection_that_nobody_can_be_asked_about_is_a_denial(
    connect: Any, era: str, target: Target
) -> None:
    target.paths.clear()
    async with connect(era, None) as client:
        session = await opened(client)
        code = FETCH.replace("PORT", str(target.port))
        result = await client.call_tool("execute_code", {"code": code, "session_id": session})
    assert target.paths == []
    assert "no elicitation" in result.structured_content["denials"][0]


async def test_rest_does_not_go_around_a_tool_that_is_asked_for(asking: Served) -> None:
    async with asking.http() as http:
        opened = await http.post("/mcp/v1/sessions", json={"policy": "careful"})
        session = opened.json()["session_id"]
        answer = await http.put(f"/mcp/v1/sessions/{session}/files/f", content=b"x")
    assert answer.status_code == 403
    assert "over REST nobody can be asked" in answer.text
    close_all(asking)


async def test_every_question_and_answer_is_on_record(asking: Served) -> None:
    async with asking.http() as http:
        transport = streamable_http_client(asking.url, http_client=http)
        person = Person([yes(), NO])
        async with Client(transport, mode="legacy", elicitation_callback=person) as client:
            session = await opened(client)
            for _ in range(2):
                await client.call_tool("run_command", {"command": "true", "session_id": session})
    assert approvals(asking.state)[-4:] == [
        ("asked", "tool run_command"),
        ("approved", "tool run_command"),
        ("asked", "tool run_command"),
        ("denied", "tool run_command"),
    ]
    close_all(asking)


async def test_a_call_that_is_over_is_not_run_again_by_coming_back(asking: Served) -> None:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "run_command",
            "arguments": {"command": "echo run >> times"},
            "requestState": "made-up",
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "forger", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
            },
        },
    }
    headers = {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "run_command",
        "Accept": "application/json, text/event-stream",
    }
    async with asking.http(**headers) as http:
        answer: httpx2.Response = await http.post("/mcp/v1", json=body)
        assert "requestState" in answer.text
        listed = await http.get("/mcp/v1/sessions")
    assert listed.json()["sessions"] == []


@pytest.mark.parametrize("era", ERAS)
async def test_a_cell_that_was_asked_about_goes_on_telling_its_progress(
    connect: Any, era: str, target: Target
) -> None:
    told: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    async with connect(era, Person([yes()])) as client:
        session = await opened(client)
        fetch = FETCH.replace("PORT", str(target.port))
        code = f"{fetch}\nimport time\nfor n in range(6): print(n, flush=True); time.sleep(0.3)"
        arguments = {"code": code, "session_id": session, "progress_interval": 0.2}
        result = await client.call_tool("execute_code", arguments, progress_callback=hear)
    assert result.structured_content["status"] == "ok"
    assert result.structured_content["text"].endswith("3\n4\n5")
