"""Calls on record: over MCP and REST, whatever becomes of them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from mcp import Client, MCPError

from sandbox.audit import digest_of, verify
from sandbox.audit.chain import Line, read_line
from sandbox.audit.logfiles import lines, segments
from sandbox.server.grants import LOCAL_GRANT
from sandbox.sessions.manager import SessionManager
from sandbox.testing import FakeEngine

from .conftest import words
from .test_application import open_session

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "controllers" / "serve" / "audit"


def written(folder: Path, kind: str) -> list[Line]:
    """The lines of one kind, of a log that must be intact."""
    assert verify(folder, "serve").is_intact
    every = [read_line(data) for path in segments(folder) for data in lines(path)]
    return [line for line in every if line.kind == kind]


def last_call(folder: Path) -> dict[str, object]:
    return written(folder, "call")[-1].values


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """No line fits into the log any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (segments(folder)[-1].stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_call_is_recorded_with_whose_session_and_policy_it_was(
    client: Client, manager: SessionManager, folder: Path
) -> None:
    arguments = {"code": "print('a secret')"}
    result = await client.call_tool("execute_code", arguments)
    told = last_call(folder)
    policy = manager.policies.get()
    assert result.structured_content is not None
    assert told["session_id"] == result.structured_content["session_id"]
    assert (told["principal"], told["tool"], told["outcome"]) == ("local", "execute_code", "ok")
    assert (told["policy"], told["policy_digest"]) == (policy.name, policy.digest)
    assert (told["arguments"], told["transport"]) == (digest_of(arguments), "stdio")
    assert told["code"] == "ok"
    assert 0 < float(str(told["duration_s"])) < 60
    assert "secret" not in segments(folder)[-1].read_text()


@pytest.mark.parametrize(
    ("tool", "arguments", "outcome", "code"),
    [
        ("execute_code", {"code": "x", "nonsense": 1}, "refused", "invalid_request"),
        ("execute_code", {}, "refused", "invalid_request"),
        ("execute_code", {"code": "1", "session_id": "foreign"}, "refused", "not_found"),
        ("open_session", {"policy": "../x"}, "refused", "policy_error"),
        ("open_session", {"policy": "absent"}, "refused", "not_found"),
        ("read_file", {"path": "absent"}, "failed", "file_error.not_found"),
        ("execute_code", {"code": "raise ValueError"}, "failed", "error"),
        ("list_sessions", {}, "ok", None),
    ],
)
async def test_a_call_is_recorded_whatever_comes_of_it(
    client: Client, folder: Path, tool: str, arguments: dict[str, object], outcome: str, code: str
) -> None:
    result = await client.call_tool(tool, arguments)
    told = last_call(folder)
    assert (told["tool"], told["outcome"], told.get("code")) == (tool, outcome, code), words(result)
    assert told["arguments"] == digest_of(arguments)


@pytest.mark.parametrize("tool", ["no_such_tool", "no\nsuch\x1b[2Jtool"])
async def test_a_call_of_a_tool_that_is_not_there_is_on_record(
    client: Client, folder: Path, tool: str
) -> None:
    with pytest.raises(MCPError):
        await client.call_tool(tool, {})
    told = last_call(folder)
    assert (told["tool"], told["outcome"], told["code"]) == (tool, "refused", "invalid_request")


async def test_a_tool_that_the_policy_does_not_allow_is_on_record(
    client: Client, folder: Path
) -> None:
    opened = await client.call_tool("open_session", {"policy": "strict"})
    assert opened.structured_content is not None
    session_id = opened.structured_content["session_id"]
    await client.call_tool("execute_code", {"code": "1", "session_id": session_id})
    told = last_call(folder)
    assert (told["outcome"], told["code"]) == ("refused", "not_permitted")
    assert (told["session_id"], told["policy"]) == (session_id, "strict")


async def test_a_call_that_is_given_up_is_recorded_as_cancelled(
    client: Client, folder: Path
) -> None:
    await client.call_tool("open_session", {})
    with anyio.move_on_after(0.3):
        await client.call_tool("execute_code", {"code": "sleep(30)"})
    with anyio.fail_after(10):
        while last_call(folder)["tool"] != "execute_code":
            await anyio.sleep(0.02)
    assert last_call(folder)["outcome"] == "cancelled"


async def test_a_sessions_life_is_on_record_with_its_proof(
    client: Client, folder: Path, manager: SessionManager
) -> None:
    opened = await client.call_tool("open_session", {"name": "mine"})
    assert opened.structured_content is not None
    session_id = opened.structured_content["session_id"]
    await client.call_tool("close_session", {"session_id": session_id})
    begin, end = (line.values for line in written(folder, "session"))
    policy = manager.policies.get()
    assert (begin["event"], begin["name"], begin["principal"]) == ("opened", "mine", "local")
    assert begin["checks"] == opened.structured_content["checks_passed"] > 0
    assert len(str(begin["proof"])) == 64
    assert begin["policy_digest"] == end["policy_digest"] == policy.digest
    assert (begin["image"], begin["runtime"]) == ("sandbox/python:test", "runc")
    assert begin["container_id"] == end["container_id"]
    assert (end["event"], end["state"]) == ("ended", "closed")


async def test_an_opening_that_fails_is_on_record_with_its_reason(
    client: Client, folder: Path, engine: FakeEngine
) -> None:
    engine.images = frozenset({"other"})
    await client.call_tool("open_session", {})
    (line,) = written(folder, "session")
    assert line.values["event"] == "not_opened"
    assert "image" in str(line.values["reason"])
    assert (last_call(folder)["outcome"], last_call(folder)["code"]) == ("failed", "image_missing")


async def test_controllers_and_their_policies_are_on_record(
    manager: SessionManager, folder: Path
) -> None:
    assert [line.values["event"] for line in written(folder, "controller")] == ["started"]
    (loaded,) = written(folder, "policy")
    assert loaded.values["digest"] == manager.policies.digest


async def test_requests_over_rest_are_on_record(http: httpx.AsyncClient, folder: Path) -> None:
    session_id = await open_session(http, name="mine")
    opened = last_call(folder)
    url = f"/mcp/v1/sessions/{session_id}/files/f"
    await http.put(url, content=b"x" * 1000)
    await http.get(url, headers={"Range": "bytes=5000-"})
    await http.delete(url)
    await http.get("/mcp/v1/sessions/absent")
    await http.post("/mcp/v1/sessions", json={"polcy": 1})
    await http.patch("/mcp/v1/sessions")
    await http.get("/mcp/v1/else%1B[2J")
    await http.get("/healthz")
    told = [line.values for line in written(folder, "call")]
    file = "/sessions/{session_id}/files/{path:path}"
    assert (opened["tool"], opened["session_id"]) == ("POST /sessions", session_id)
    assert [(each["tool"], each["outcome"], each.get("code")) for each in told[1:]] == [
        (f"PUT {file}", "ok", None),
        (f"GET {file}", "failed", "http_416"),
        (f"DELETE {file}", "ok", None),
        ("GET /sessions/{session_id}", "refused", "not_found"),
        ("POST /sessions", "refused", "invalid_request"),
        ("PATCH /mcp/v1/sessions", "refused", "method_not_allowed"),
        ("GET /mcp/v1/else\x1b[2J", "refused", "not_found"),
    ]
    assert {(each["transport"], each["token_id"]) for each in told} == {("rest", "local")}
    assert [each.get("session_id") for each in told[1:5]] == [session_id] * 3 + ["absent"]
    assert told[0]["arguments"] != told[5]["arguments"]


async def test_what_is_asked_for_tells_the_digests_of_openings_apart(
    http: httpx.AsyncClient, folder: Path
) -> None:
    for name in ("one", "two", "one"):
        await open_session(http, name=name)
    first, second, third = (line.values["arguments"] for line in written(folder, "call"))
    assert first == third != second


async def test_strangers_are_summed_up_and_told_apart(
    http: httpx.AsyncClient, folder: Path, manager: SessionManager
) -> None:
    for _ in range(50):
        answer = await http.get("/mcp/v1/sessions", headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 401
    await http.get("/mcp/v1/sessions", headers={"Host": "evil.example"})
    assert not written(folder, "call")
    manager.audit.close()
    told = [line.values for line in written(folder, "denial")]
    assert [(each["reason"], each.get("repeated")) for each in told] == [
        ("token", None),
        ("host", None),
        ("token", 49),
    ]


async def test_while_the_disk_is_full_nothing_runs_and_sessions_can_be_closed(
    client: Client, http: httpx.AsyncClient, folder: Path, engine: FakeEngine
) -> None:
    await client.call_tool("open_session", {})
    session_id = await open_session(http, name="other")
    with full_disk(folder):
        await client.call_tool("list_files", {})  # the one during which it comes out
        refused = await client.call_tool("execute_code", {"code": "1"})
        assert refused.is_error
        assert "audit log" in words(refused)
        assert (await client.call_tool("open_session", {"reuse": False})).is_error
        url = f"/mcp/v1/sessions/{session_id}"
        assert (await http.put(f"{url}/files/f", content=b"x")).status_code == 500
        assert (await http.get("/mcp/v1/sessions")).status_code == 200
        assert (await http.delete(url)).status_code == 200
        assert not (await client.call_tool("list_sessions", {})).is_error
        assert not (await client.call_tool("close_session", {})).is_error
        assert not engine.containers
    assert not (await client.call_tool("execute_code", {"code": "1"})).is_error
    told = [(line.values["tool"], line.values["outcome"]) for line in written(folder, "call")]
    assert ("execute_code", "failed") in told
    assert told[-1] == ("execute_code", "ok")
    assert told.count(("list_sessions", "ok")) == 1


async def test_what_is_asked_of_something_that_ended_is_recorded_with_its_session_and_policy(
    client: Client, manager: SessionManager, folder: Path
) -> None:
    ran = (await client.call_tool("execute_code", {"code": "x = 1"})).structured_content
    wrote = (await client.call_tool("run_command", {"command": "true"})).structured_content
    session_id = ran["session_id"]
    digest = (await manager.get(LOCAL_GRANT.caller(), session_id)).policy.digest
    for tool, asked in (
        ("get_execution", {"execution_id": ran["execution_id"]}),
        ("get_command", {"command_id": wrote["command_id"]}),
        ("list_executions", {"session_id": session_id}),
    ):
        await client.call_tool(tool, asked)
        told = last_call(folder)
        assert (told["tool"], told["session_id"], told["policy_digest"]) == (
            tool,
            session_id,
            digest,
        )
    await client.read_resource(f"execution://{ran['execution_id']}")
    assert (last_call(folder)["session_id"], last_call(folder)["policy"]) == (session_id, "offline")
