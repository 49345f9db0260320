"""Which tools a token may see and call, and under which policies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.transport_security import TransportSecuritySettings

from sandbox.server import auth
from sandbox.server.application import make_app
from sandbox.server.desk import Desk
from sandbox.server.grants import Grant
from sandbox.server.scopes import SCOPES, TOOL_SCOPES, scopes_of
from sandbox.server.tools.catalogue import all_tools
from sandbox.sessions.manager import SessionManager
from sandbox.testing import FakeEngine

from ...support.applications import started
from .conftest import words

pytestmark = pytest.mark.anyio

ALL = frozenset(SCOPES)


class Grants:
    """A verifier whose tokens a test gives and takes."""

    def __init__(self) -> None:
        self.known: dict[str, Grant] = {}

    def give(
        self,
        token: str,
        scopes: Iterable[str] = ALL,
        *,
        principal: str = "alice",
        policies: tuple[str, ...] | None = None,
    ) -> None:
        self.known[token] = Grant(principal, "a test", token, frozenset(scopes), policies)

    async def grant(self, token: str) -> Grant | None:
        return self.known.get(token)


class Front:
    """The application in memory, and clients of it."""

    def __init__(self, app: Any, grants: Grants) -> None:
        self._app = app
        self.grants = grants

    def http(self, token: str, conversation: str = "") -> httpx2.AsyncClient:
        named = {"Sandbox-Session": conversation} if conversation else {}
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self._app),
            base_url="http://test",
            headers={"Authorization": f"Bearer {token}", **named},
        )

    @asynccontextmanager
    async def client(self, token: str, conversation: str = "") -> AsyncIterator[Client]:
        async with self.http(token, conversation) as http:
            transport = streamable_http_client("http://test/mcp/v1", http_client=http)
            async with Client(transport, mode="2026-07-28") as client:
                yield client


@pytest.fixture
async def front(desk: Desk, manager: SessionManager) -> AsyncIterator[Front]:
    grants = Grants()
    app = make_app(
        desk,
        verifier=grants,
        security=TransportSecuritySettings(allowed_hosts=["test"], allowed_origins=[]),
        check=manager.runtime.engine,
    )
    async with started(app):
        yield Front(app, grants)


async def test_every_tool_needs_one_scope_that_exists(desk: Desk) -> None:
    names = [tool.name for tool in all_tools(desk)]
    assert sorted(names) == sorted(TOOL_SCOPES)
    assert set(TOOL_SCOPES.values()) <= set(SCOPES)


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_token_sees_and_calls_the_tools_of_its_scope_only(
    front: Front, engine: FakeEngine, scope: str
) -> None:
    front.grants.give("t", [scope])
    mine = {tool for tool in TOOL_SCOPES if scopes_of(tool) == (scope,)}
    async with front.client("t") as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == mine
        for tool in TOOL_SCOPES.keys() - mine:
            refused = await client.call_tool(tool, {})
            assert refused.is_error
            assert refused.meta["io.sandbox/error"]["code"] == "not_permitted"
            assert any(needed in words(refused) for needed in scopes_of(tool) if needed != scope)
    assert not engine.containers, "nothing has run"


async def test_a_token_without_the_session_scope_works_in_its_default_session(
    front: Front, engine: FakeEngine
) -> None:
    front.grants.give("t", ["files:read"])
    async with front.client("t") as client:
        assert not (await client.call_tool("list_files", {})).is_error
    assert len(engine.containers) == 1


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/sessions", "session"),
        ("POST", "/sessions", "session"),
        ("GET", "/sessions/x", "session"),
        ("DELETE", "/sessions/x", "session"),
        ("GET", "/sessions/x/files/f", "files:read"),
        ("HEAD", "/sessions/x/files/f", "files:read"),
        ("PUT", "/sessions/x/files/f", "files:write"),
        ("DELETE", "/sessions/x/files/f", "files:write"),
    ],
)
async def test_rest_needs_the_scopes_of_the_tools(
    front: Front, engine: FakeEngine, method: str, path: str, scope: str
) -> None:
    front.grants.give("without", ALL - {scope})
    front.grants.give("with", [scope])
    async with front.http("without") as http:
        assert (await http.request(method, f"/mcp/v1{path}")).status_code == 403
    assert not engine.containers
    async with front.http("with") as http:
        assert (await http.request(method, f"/mcp/v1{path}")).status_code != 403


async def test_a_policy_that_a_token_may_not_name_is_refused_whether_it_exists_or_not(
    front: Front, engine: FakeEngine
) -> None:
    front.grants.give("t", policies=("strict",))
    async with front.http("t") as http:
        answers = [
            await http.post("/mcp/v1/sessions", json={"policy": name})
            for name in ("offline", "absent", "../x")
        ]
        assert [answer.status_code for answer in answers] == [403, 403, 403]
        assert {answer.json()["remedy"] for answer in answers} == {"It may name: strict."}
        assert not engine.containers
        opened = await http.post("/mcp/v1/sessions")
    assert opened.json()["policy"] == "strict", "the first that it may name is its default"


async def test_a_token_does_not_meet_sessions_under_policies_that_it_may_not_name(
    front: Front,
) -> None:
    front.grants.give("wide")
    front.grants.give("narrow", policies=("strict",))
    async with front.http("wide") as http:
        wide = (await http.post("/mcp/v1/sessions")).json()["session_id"]
    async with front.client("wide") as client:
        ran = await client.call_tool("execute_code", {"code": "1+1"})
        execution_id = ran.structured_content["execution_id"]
    async with front.http("narrow") as http:
        assert (await http.get("/mcp/v1/sessions")).json() == {"sessions": []}
        for method in ("GET", "DELETE"):
            assert (await http.request(method, f"/mcp/v1/sessions/{wide}")).status_code == 404
    async with front.client("narrow") as client:
        read = await client.call_tool("write_file", {"path": "f", "content": "x"})
        assert not read.is_error
        mine = await client.call_tool("list_sessions", {})
        assert [info["policy"] for info in mine.structured_content["sessions"]] == ["strict"]
        for tool, arguments in (
            ("execute_code", {"code": "1", "session_id": wide}),
            ("get_execution", {"execution_id": execution_id}),
        ):
            told = await client.call_tool(tool, arguments)
            assert told.meta["io.sandbox/error"]["code"] == "not_found"
    async with front.http("wide") as http:
        await http.delete(f"/mcp/v1/sessions/{wide}")
    async with front.http("narrow") as http:  # nor when it has ended
        assert (await http.delete(f"/mcp/v1/sessions/{wide}")).status_code == 404


async def test_a_foreign_session_and_an_absent_one_get_the_same_answer(front: Front) -> None:
    front.grants.give("a", principal="alice")
    front.grants.give("m", principal="mallory")
    async with front.http("a") as http:
        foreign = (await http.post("/mcp/v1/sessions")).json()["session_id"]
    absent = foreign[:-4] + ("aaaa" if not foreign.endswith("aaaa") else "bbbb")
    calls: list[tuple[str, dict[str, Any]]] = [
        ("get_session", {}),
        ("close_session", {}),
        ("execute_code", {"code": "1"}),
        ("list_files", {}),
        ("open_terminal", {}),
    ]
    async with front.client("m") as client:
        for tool, arguments in calls:
            told = [
                words(await client.call_tool(tool, {**arguments, "session_id": wanted}))
                for wanted in (foreign, absent)
            ]
            assert told[0].replace(foreign, "ID") == told[1].replace(absent, "ID")
    async with front.http("m") as http:
        for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/files/f"), ("PUT", "/files/f")):
            bodies = [
                (await http.request(method, f"/mcp/v1/sessions/{wanted}{rest}")).text
                for wanted in (foreign, absent)
            ]
            assert bodies[0].replace(foreign, "ID") == bodies[1].replace(absent, "ID")


async def test_a_token_that_is_revoked_ends_the_requests_that_it_has_open(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "RECHECK_S", 0.05)
    front.grants.give("t")
    async with front.http("t") as http:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:

                async def wait_long() -> None:
                    call = {
                        "jsonrpc": "2.0",
                        "id": 1,
                        "method": "tools/call",
                        "params": {
                            "name": "execute_code",
                            "arguments": {"code": "sleep(60)", "wait": 60},
                            "_meta": {
                                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                                "io.modelcontextprotocol/clientCapabilities": {},
                            },
                        },
                    }
                    headers = {
                        "Accept": "application/json, text/event-stream",
                        "MCP-Protocol-Version": "2026-07-28",
                        "Mcp-Method": "tools/call",
                        "Mcp-Name": "execute_code",
                    }
                    answer = await http.post("/mcp/v1", json=call, headers=headers)
                    ended.append((answer.status_code, answer.text))

                ended: list[tuple[int, str]] = []
                tasks.start_soon(wait_long)
                while not (await http.get("/mcp/v1/sessions")).json()["sessions"]:
                    await anyio.sleep(0.02)
                assert not ended
                del front.grants.known["t"]
        assert "result" not in ended[0][1]
        assert (await http.get("/mcp/v1/sessions")).status_code == 401


async def test_only_an_administrator_sees_and_closes_the_sessions_of_others(front: Front) -> None:
    front.grants.give("alice", ALL - {"admin"}, principal="alice")
    front.grants.give("bob", ALL - {"admin"}, principal="bob")
    front.grants.give("keeper", {"admin"}, principal="keeper")
    async with front.http("alice") as http:
        opened = (await http.post("/mcp/v1/sessions")).json()["session_id"]
    async with front.http("bob") as http:
        for refused in (
            await http.get("/mcp/v1/admin/sessions"),
            await http.delete(f"/mcp/v1/admin/sessions/{opened}"),
        ):
            assert refused.status_code == 403
            assert "admin" in refused.json()["detail"]
    async with front.http("keeper") as http:
        assert (await http.get("/mcp/v1/sessions")).status_code == 403
        listed = (await http.get("/mcp/v1/admin/sessions")).json()["sessions"]
        assert [(s["principal"], s["session_id"]) for s in listed] == [("alice", opened)]
        assert (await http.delete("/mcp/v1/admin/sessions/s-absent")).status_code == 404
        assert (await http.delete(f"/mcp/v1/admin/sessions/{opened}")).status_code == 200
    async with front.http("alice") as http:
        gone = await http.get(f"/mcp/v1/sessions/{opened}")
        assert gone.status_code == 410
        assert "closed by keeper" in gone.json()["detail"]
