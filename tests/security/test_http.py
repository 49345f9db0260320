"""Attacks on the HTTP API: every operation of the table, with a token for too little or somebody
else's session or key, and bodies that cost more than they weigh."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from sandbox.server.application import make_app
from sandbox.server.auth import GUARDED
from sandbox.server.desk import Desk
from sandbox.server.grants import Grant, SharedNotebook
from sandbox.server.http.given import names_in
from sandbox.server.http.operation import Operation
from sandbox.server.http.table import all_operations
from sandbox.server.scopes import SCOPES
from sandbox.server.tokens import TokenStore
from sandbox.sessions.manager import SessionManager

from ..support.applications import started

pytestmark = pytest.mark.anyio

QUICK_S = 2.0
CHOSEN = {"index": "0", "kernel_id": "k-default"}


class Grants:
    """A verifier of tokens that the test gives out."""

    def __init__(self) -> None:
        self.given: dict[str, Grant] = {}

    def give(
        self,
        token: str,
        principal: str = "alice",
        scopes: Iterable[str] = SCOPES,
        policies: tuple[str, ...] | None = None,
        notebook: SharedNotebook | None = None,
    ) -> None:
        scope = frozenset(scopes)
        grant = Grant(principal, "test", token, scope, policies)
        self.given[token] = replace(grant, notebook=notebook)

    async def grant(self, token: str) -> Grant | None:
        return self.given.get(token)


class Api:
    """The application, and tokens for it."""

    def __init__(self, app: ASGIApp, grants: Grants) -> None:
        self._app = app
        self.grants = grants

    def http(self, token: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self._app),
            base_url="http://test",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )

    @asynccontextmanager
    async def session(self, token: str) -> AsyncIterator[str]:
        """The id of a session of that token, which is closed at the end."""
        async with self.http(token) as http:
            made = await http.post("/mcp/v1/sessions", json={"reuse": False})
            assert made.status_code == 201, made.text
            try:
                yield made.json()["session_id"]
            finally:
                await http.delete(made.headers["location"])


@pytest.fixture
async def api(manager: SessionManager, tmp_path: Path) -> AsyncIterator[Api]:
    grants, tokens = Grants(), TokenStore(tmp_path)
    app = make_app(
        Desk(manager, tokens=tokens),
        verifier=grants,
        security=TransportSecuritySettings(allowed_hosts=["test"], allowed_origins=[]),
        check=manager.runtime.engine,
    )
    async with started(app):
        yield Api(app, grants)
    tokens.close()


def request_of(operation: Operation, **known: str) -> dict[str, Any]:
    """A request that the operation takes, as far as its arguments say."""
    http = operation.http
    path = http.template
    for name in names_in(http.path):
        path = path.replace(f"{{{name}}}", known.get(name, CHOSEN.get(name, "x")))
    needed = {
        name: _value(operation.arguments[name])
        for name in operation.required
        if f"{{{name}}}" not in http.template
    }
    if operation.name == "tighten_session":
        needed["network"] = "none"
    given: dict[str, Any] = {"json": needed} if http.has_body else {"params": needed}
    return {"method": http.method, "url": GUARDED + path, **given}


def _value(schema: Any) -> Any:
    kind = schema.get("type")
    if "enum" in schema:
        return schema["enum"][0]
    return {"integer": schema.get("minimum", 1), "array": ["x"], "boolean": False}.get(kind, "x")


async def test_every_operation_needs_its_scope_and_does_nothing_without(
    api: Api, manager: SessionManager
) -> None:
    """Invariant 6: all other scopes together are not enough."""
    operations = all_operations(Desk(manager))
    assert len(operations) > 30
    for scope in SCOPES:
        api.grants.give(f"not {scope}", scopes=SCOPES.keys() - {scope})
    for operation in operations:
        for scope in operation.scopes:
            async with api.http(f"not {scope}") as http:
                answer = await http.request(**request_of(operation))
            assert answer.status_code == 403, operation.name
            assert f'scope="{scope}"' in answer.headers["www-authenticate"]


async def test_a_token_for_one_notebook_is_for_no_operation(
    api: Api, manager: SessionManager
) -> None:
    """Invariant 6: whatever scopes it has, also for that notebook."""
    api.grants.give("a")
    async with api.session("a") as session_id:
        api.grants.give("shared", notebook=SharedNotebook(session_id, "/workspace/x"))
        async with api.http("shared") as http:
            for operation in all_operations(Desk(manager)):
                answer = await http.request(**request_of(operation, session_id=session_id))
                assert answer.status_code in (401, 403), operation.name


async def test_no_operation_reaches_a_session_of_somebody_else(
    api: Api, manager: SessionManager
) -> None:
    """Invariant 6: a foreign session answers as one that never was, whatever is asked of it."""
    api.grants.give("a", "alice")
    api.grants.give("m", "mallory")
    operations = [
        each
        for each in all_operations(Desk(manager))
        if "{session_id}" in each.http.path and each.scopes != ("admin",)
    ]
    async with api.session("a") as foreign, api.http("a") as http:
        ran = await http.post(f"/mcp/v1/sessions/{foreign}/executions", json={"code": "1"})
        execution_id = ran.json()["execution_id"]
        async with api.http("m") as mallory:
            for each in operations:
                told = [
                    await mallory.request(
                        **request_of(each, session_id=wanted, execution_id=execution_id)
                    )
                    for wanted in (foreign, foreign[:-3] + "aaa")
                ]
                assert {answer.status_code for answer in told} == {404}, each.name
                said = [answer.text.replace(foreign, "ID") for answer in told]
                assert said[0] == said[1].replace(foreign[:-3] + "aaa", "ID"), each.name
        assert (await http.get(f"/mcp/v1/sessions/{foreign}")).status_code == 200


async def test_a_key_of_somebody_else_gives_nobody_their_answer(api: Api) -> None:
    """Invariant 6: nor does one's own, to a token that may do less."""
    api.grants.give("a", "alice")
    api.grants.give("m", "mallory")
    api.grants.give("less", "alice", scopes=("files:read",))
    api.grants.give("narrow", "alice", policies=("package-index",))
    key = {"Idempotency-Key": "the-same"}
    async with api.http("a") as alice:
        made = await alice.post("/mcp/v1/sessions", json={"reuse": False}, headers=key)
        theirs = made.json()["session_id"]
        async with api.http("m") as http:
            mine = await http.post("/mcp/v1/sessions", json={"reuse": False}, headers=key)
            assert mine.status_code == 201
            assert theirs not in mine.text
            await http.delete(mine.headers["location"])
        for token, status in (("less", 403), ("narrow", 422)):
            async with api.http(token) as http:
                told = await http.post("/mcp/v1/sessions", json={"reuse": False}, headers=key)
            assert (told.status_code, theirs in told.text) == (status, False)
        again = await alice.post("/mcp/v1/sessions", json={"reuse": False}, headers=key)
        assert again.json()["session_id"] == theirs
        await alice.delete(made.headers["location"])


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"[" * 60_000, {413}),
        (b'{"a":' * 9000, {400, 413}),
        (b'{"name": "' + b"\\u0000" * 9000 + b'"}', {400}),
        (b'{"name": ' + b"9" * 60_000 + b"}", {400}),
        (b'{"deny": [' + b'"x",' * 20_000 + b'"x"]}', {413}),
        (b"{" + b",".join(b'"k%d": 1' % n for n in range(4000)) + b"}", {400}),
        (b" " * 70_000, {413}),
        (b"\xff\xfe{\x00}\x00", {400}),
        (b"\x00" * 100, {400}),
        (b" " * (5 * 1024 * 1024), {413}),
    ],
    ids=[
        *("nested lists", "nested objects", "long text", "long number", "long list"),
        *("many names", "over 64 KiB", "other encoding", "zeros", "over 4 MiB"),
    ],
)
async def test_a_body_that_costs_more_than_it_weighs_is_refused_at_once(
    api: Api, body: bytes, statuses: set[int]
) -> None:
    """Invariant 3: before it is parsed where it is too much, and nothing is made of it."""
    api.grants.give("a")
    async with api.http("a") as http:
        began = time.process_time()
        with anyio.fail_after(30):
            answer = await http.post("/mcp/v1/sessions", content=body)
        assert time.process_time() - began < QUICK_S
        assert answer.status_code in statuses
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.content) < 4000
        assert (await http.get("/mcp/v1/sessions")).json() == {"sessions": []}
