"""Forks of sessions over MCP, REST and the command line, on a real engine."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from sandbox.cli import exits

from ..support.served import Served, sandbox

CODE = """\
import sqlite3
rows = list(range(1000))
conn = sqlite3.connect(":memory:")
open("note", "w").write("hello")
"""
LOOK = "print(len(rows), open('note').read(), 'conn' in globals())"
SEEN = "1000 hello False"
WHY = "a sqlite3.Connection cannot be pickled"

pytestmark = pytest.mark.anyio


async def opened(http: Any) -> str:
    """A session with variables and a file."""
    session_id = (await http.post("/mcp/v1/sessions", json={})).json()["session_id"]
    assert (await ran(http, session_id, CODE))["status"] == "ok"
    return session_id


async def ran(http: Any, session_id: str, code: str) -> dict[str, Any]:
    """What became of a cell."""
    path = f"/mcp/v1/sessions/{session_id}/executions?wait=60"
    return (await http.post(path, json={"code": code})).json()


async def test_rest_answers_a_fork_with_what_each_copy_has_and_what_none_has(clean: Served) -> None:
    async with clean.http() as http:
        session_id = await opened(http)
        wanted = {"name": "try", "count": 2}
        answer = await http.post(f"/mcp/v1/sessions/{session_id}/fork", json=wanted)
        assert answer.status_code == 201, answer.text
        told = answer.json()
        forks = [each["session_id"] for each in told["sessions"]]
        seen = [(await ran(http, each, LOOK))["text"] for each in forks]
        await ran(http, forks[0], "rows.clear()")
        own = await ran(http, session_id, "len(rows), conn.execute('select 1').fetchone()")
        info = (await http.get(f"/mcp/v1/sessions/{forks[1]}")).json()

    assert told["forked_from"] == session_id
    assert [each["name"] for each in told["sessions"]] == ["try-1", "try-2"]
    for each in told["sessions"]:
        (kernel,) = each["kernels"]
        assert kernel["carried"] == ["sqlite3", "rows"]
        assert kernel["left"] == [{"name": "conn", "reason": WHY}]
        assert each["files"] == 1
    assert seen == [SEEN, SEEN]
    assert own["text"] == "(1000, (1,))"
    assert (info["forked_from"], info["name"]) == (session_id, "try-2")


async def test_rest_refuses_a_fork_with_the_reason_and_leaves_no_session(clean: Served) -> None:
    async with clean.http() as http:
        session_id = await opened(http)
        url = f"/mcp/v1/sessions/{session_id}/fork"
        absent = await http.post("/mcp/v1/sessions/s-absent/fork", json={})
        many = await http.post(url, json={"count": 9})
        path = f"/mcp/v1/sessions/{session_id}/executions"
        code = "import time\ntime.sleep(60)"
        running = (await http.post(f"{path}?wait=0", json={"code": code})).json()
        with anyio.fail_after(30):
            while True:
                kernels = await http.get(f"/mcp/v1/sessions/{session_id}/kernels")
                if kernels.json()["kernels"][0]["state"] == "busy":
                    break
                await anyio.sleep(0.02)
        busy = await http.post(url, json={})
        listed = (await http.get("/mcp/v1/sessions")).json()["sessions"]

    assert running["status"] == "running"
    assert absent.status_code == 404
    assert (many.status_code, "count" in many.text) == (400, True)
    assert (busy.status_code, busy.json()["code"]) == (409, "conflict")
    assert "running a cell" in busy.text
    assert [each["session_id"] for each in listed] == [session_id]


async def test_a_tool_answers_a_fork_in_words_that_name_what_is_not_carried(clean: Served) -> None:
    async with clean.client() as client:
        await client.call_tool("execute_code", {"code": CODE})
        result = await client.call_tool("fork_session", {"name": "try"})
        assert result.structured_content is not None
        (fork,) = result.structured_content["sessions"]
        there = {"code": LOOK, "session_id": fork["session_id"]}
        seen = await client.call_tool("execute_code", there)

    text = "\n".join(getattr(block, "text", "") for block in result.content)
    assert f"Session {fork['session_id']} 'try': 1 files" in text
    assert f"- conn: {WHY}" in text
    assert "Left behind: history" in text
    assert seen.structured_content is not None
    assert seen.structured_content["text"] == SEEN


async def test_a_person_forks_a_session_from_the_command_line(clean: Served) -> None:
    async with clean.http() as http:
        session_id = await opened(http)
    words = ("sessions", "fork", session_id, "--name", "try")
    spoken = await anyio.to_thread.run_sync(sandbox, clean.state, *words)
    as_json = await anyio.to_thread.run_sync(sandbox, clean.state, *words[:3], "-n", "2", "--json")
    absent = await anyio.to_thread.run_sync(sandbox, clean.state, "sessions", "fork", "s-absent")
    async with clean.http() as http:
        told = json.loads(as_json.stdout)
        forks = [each["session_id"] for each in told["sessions"]]
        seen = [(await ran(http, each, LOOK))["text"] for each in forks]
        listed = (await http.get("/mcp/v1/sessions")).json()["sessions"]

    assert spoken.returncode == exits.OK, spoken.stderr
    assert "'try': 1 files" in spoken.stdout
    assert f"- conn: {WHY}" in spoken.stdout
    assert "Left behind: history" in spoken.stdout
    assert told["forked_from"] == session_id
    assert seen == [SEEN, SEEN]
    assert (absent.returncode, absent.stdout) == (exits.FAILED, "")
    assert "s-absent" in absent.stderr
    named = {each["name"] for each in listed if each.get("forked_from") == session_id}
    assert (len(listed), "try" in named) == (4, True)
