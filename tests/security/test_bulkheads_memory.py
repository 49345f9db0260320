"""Attacks on the controller's memory and time, by a caller and by a supervisor that was taken over.

The controller may take 200 MiB beside what it has at rest (``RLIMIT_AS``), and another principal
works all the time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from ..support.calls import greeting
from ..support.served import RUNTIME, Served, close_all
from .bounded import as_principal, neighbour_served, pressed

pytestmark = [pytest.mark.anyio, pytest.mark.timed]

LIAR = (Path(__file__).parent / "liar.py").read_text()
MODERN = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "MCP-Protocol-Version": "2026-07-28",
    "MCP-Method": "tools/call",
    "MCP-Name": "execute_code",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pressed(tmp_path_factory.mktemp("pressed")) as served:
        yield served


@pytest.fixture
def attacker(controller: Served) -> Iterator[Served]:
    """Its sessions are closed at the end: a test that is tried again begins with new ones."""
    made = as_principal(controller, "attacker")
    yield made
    close_all(made)


def call(arguments: dict[str, Any]) -> bytes:
    """A ``tools/call`` of ``execute_code``."""
    params = {"name": "execute_code", "arguments": arguments, "_meta": META}
    return json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    ).encode()


@pytest.mark.skipif(
    RUNTIME == "runsc", reason="how it takes the link was made for Linux; not tried in gVisor"
)
async def test_a_file_of_a_false_size_is_not_taken_in(controller: Served, attacker: Served) -> None:
    """Invariant 3: a stream is bounded by what was asked, not by what a supervisor promised."""
    async with attacker.client(key="lies") as client, attacker.http() as http:
        planted = (
            f"open('/tmp/liar.py', 'w').write({LIAR!r})\n"
            "import subprocess; print(subprocess.run(['python3', '/tmp/liar.py']).returncode)"
        )
        ran = await client.call_tool("execute_code", {"code": planted})
        session_id = ran.structured_content["session_id"]
        await anyio.sleep(2)  # the supervisor is stopped by then, and the liar in its place
        async with neighbour_served(controller):
            with anyio.fail_after(60):
                read = await client.call_tool("read_file", {"path": "a"})
                edit = await client.call_tool(
                    "edit_file", {"path": "a", "old_string": "x", "new_string": "y"}
                )
            assert read.is_error
            assert edit.is_error
            assert "too long" in str(read.content), read.content
            url = f"/mcp/v1/sessions/{session_id}/files/a"
            whole = await http.get(url)
            assert len(whole.content) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {f"argument_number_{number}": "" for number in range(150_000)},
        {f"code{number}": "" for number in range(9_000)},
        {"code": "1", "keys": [[]] * 1_000_000},
        {"code": "1", "keys": [[]] * 9_000},
        {"code": {"x": "," * 3_000_000}},
    ],
    ids=["names", "fewer names", "lists", "fewer lists", "commas"],
)
async def test_a_message_of_many_parts_costs_little(
    controller: Served, attacker: Served, arguments: dict[str, Any]
) -> None:
    """Invariant 3: arguments are counted before they are parsed, and refused before they are
    compared with those that there are."""
    body = call(arguments)
    async with attacker.http(**MODERN) as http, neighbour_served(controller):
        for _ in range(5):
            answer = await http.post("/mcp/v1", content=body)
            assert answer.status_code in (200, 413)
            assert answer.status_code == 413 or "was not run" in answer.text


async def test_many_large_messages_at_once_are_not_all_taken_in(
    controller: Served, attacker: Served
) -> None:
    """Invariant 3: what one principal has under way is bounded in bytes, not only in number."""
    body = call({"code": "1", "kernel_id": "x" * 3_900_000})
    statuses: list[int] = []
    async with attacker.http(**MODERN) as http, neighbour_served(controller):

        async def send() -> None:
            statuses.append((await http.post("/mcp/v1", content=body)).status_code)

        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                for _ in range(30):
                    tasks.start_soon(send)
    assert set(statuses) <= {200, 429}


async def test_handshakes_without_end_take_no_memory(controller: Served, attacker: Served) -> None:
    """Invariant 3: of one principal's MCP sessions the idle ones make room for new ones."""
    body = greeting("2025-06-18")
    headers = {key: MODERN[key] for key in ("Accept", "Content-Type")}
    made: list[str] = []
    async with attacker.http(**headers) as http, neighbour_served(controller):
        for _ in range(1500):
            answer = await http.post("/mcp/v1", json=body)
            assert answer.status_code == 200
            made.append(answer.headers["mcp-session-id"])
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        last = await http.post("/mcp/v1", json=ping, headers={"Mcp-Session-Id": made[-1]})
        first = await http.post("/mcp/v1", json=ping, headers={"Mcp-Session-Id": made[-100]})
    assert (last.status_code, first.status_code) == (200, 404)
    assert "to make room" in first.text


async def test_an_edit_of_every_line_of_a_large_file_costs_little(
    controller: Served, attacker: Served
) -> None:
    """Invariant 3: of a diff what is shown is made, and not a line for each that has changed."""
    async with attacker.client(key="edits") as client, neighbour_served(controller):
        made = "open('/workspace/large', 'w').write('x\\ny\\n' * 2_000_000)"
        await client.call_tool("execute_code", {"code": made})
        for old, new in (("x", "z"), ("\n", "\r")):
            edit = {"path": "large", "old_string": old, "new_string": new, "replace_all": True}
            result = await client.call_tool("edit_file", edit)
            assert result.structured_content["replacements"] >= 2_000_000
            assert "are not shown" in result.structured_content["diff"]


async def test_headers_without_number_are_not_looked_at(
    controller: Served, attacker: Served
) -> None:
    """Invariant 3: the headers of a request are bounded in number too, for a look-up is linear."""
    many = {f"a{number}": "" for number in range(3000)}
    async with attacker.http(**MODERN) as http, neighbour_served(controller):
        for _ in range(5):
            answer = await http.post("/mcp/v1", content=call({"code": "1"}), headers=many)
            assert answer.status_code == 431
