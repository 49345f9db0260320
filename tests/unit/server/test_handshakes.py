"""MCP sessions of clients that shake hands: bounded, and the idle ones go first."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.transport_security import TransportSecuritySettings

from sandbox.server import application, handshakes
from sandbox.server.desk import Desk
from sandbox.server.grants import Grant
from sandbox.server.handshakes import Handshakes
from sandbox.server.scopes import SCOPES
from sandbox.sessions.manager import SessionManager

from ...support.calls import greeting
from .conftest import running

pytestmark = pytest.mark.anyio

HEADERS = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
}
INITIALIZE = greeting("2025-06-18")


class Tokens:
    """Knows tokens of the form ``principal:application``."""

    async def grant(self, token: str) -> Grant | None:
        principal, _, application = token.partition(":")
        return Grant(principal, application, application, frozenset(SCOPES))


@pytest.fixture
async def http(
    desk: Desk, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(
        application, "Handshakes", lambda *given: Handshakes(*given, most_per_principal=3, most=5)
    )
    app = application.make_app(
        desk,
        verifier=Tokens(),
        security=TransportSecuritySettings(allowed_hosts=["test"], allowed_origins=[]),
        check=manager.runtime.engine,
    )
    async with running(app) as client:
        client.headers.update(HEADERS)
        yield client


def bearer(principal: str, session: str = "", app: str = "a") -> dict[str, str]:
    headers = {"Authorization": f"Bearer {principal}:{app}"}
    return {**headers, "Mcp-Session-Id": session} if session else headers


async def shake(http: httpx.AsyncClient, principal: str, app: str = "a") -> str:
    answer = await http.post("/mcp/v1", json=INITIALIZE, headers=bearer(principal, app=app))
    assert answer.status_code == 200, answer.text
    return answer.headers["mcp-session-id"]


async def ping(http: httpx.AsyncClient, principal: str, session: str) -> httpx.Response:
    call = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    return await http.post("/mcp/v1", json=call, headers=bearer(principal, session))


async def test_the_one_that_is_idle_longest_makes_room_and_its_client_is_told(
    http: httpx.AsyncClient,
) -> None:
    made = [await shake(http, "ann") for _ in range(3)]
    assert (await ping(http, "ann", made[0])).status_code == 200
    made.append(await shake(http, "ann", app="another"))
    answers = [await ping(http, "ann", session) for session in made[:3]]
    assert [answer.status_code for answer in answers] == [200, 404, 200]
    assert "to make room" in answers[1].text
    unknown = await ping(http, "ann", "0" * 32)
    assert unknown.status_code == 404
    assert "to make room" not in unknown.text


async def test_one_principal_takes_no_room_of_anothers(http: httpx.AsyncClient) -> None:
    bobs = await shake(http, "bob")
    for _ in range(20):
        await shake(http, "ann")
    assert (await ping(http, "bob", bobs)).status_code == 200


async def test_what_is_evicted_is_gone_from_the_sdk_too(http: httpx.AsyncClient) -> None:
    for number in range(40):
        await shake(http, f"p{number % 8}")
    await anyio.wait_all_tasks_blocked()
    gc.collect()
    kept = [each for each in gc.get_objects() if type(each) is StreamableHTTPServerTransport]
    assert len([each for each in kept if not each.is_terminated]) == 5
    assert len(kept) <= 6


async def test_with_another_token_nobody_makes_us_forget_one(http: httpx.AsyncClient) -> None:
    """What the SDK says is not there for that token is there still, and counts."""
    made = [await shake(http, "ann") for _ in range(3)]
    call = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    for session in made:
        await http.post("/mcp/v1", json=call, headers=bearer("ann", session, app="other"))
        await http.delete("/mcp/v1", headers=bearer("ann", session, app="other"))
    await shake(http, "ann")
    gone = [(await ping(http, "ann", session)).status_code for session in made]
    assert gone.count(404) == 1


async def test_those_that_are_busy_stay_and_a_new_one_is_refused(
    http: httpx.AsyncClient,
) -> None:
    made = [await shake(http, "ann") for _ in range(3)]
    code = {"name": "execute_code", "arguments": {"code": "sleep(60)"}}
    call = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": code}
    async with anyio.create_task_group() as tasks:
        for session in made:
            tasks.start_soon(
                lambda s=session: http.post("/mcp/v1", json=call, headers=bearer("ann", s))
            )
        await anyio.sleep(0.5)
        refused = await http.post("/mcp/v1", json=INITIALIZE, headers=bearer("ann"))
        assert refused.status_code == 429
        assert await shake(http, "bob")
        tasks.cancel_scope.cancel()


async def test_a_session_that_its_client_ended_takes_no_room(http: httpx.AsyncClient) -> None:
    first = await shake(http, "ann")
    for _ in range(10):
        session = await shake(http, "ann")
        assert (await http.delete("/mcp/v1", headers=bearer("ann", session))).status_code == 200
    assert (await ping(http, "ann", first)).status_code == 200


def test_the_bounds_leave_room_for_others() -> None:
    assert handshakes.MAX_PER_PRINCIPAL * 4 <= handshakes.MAX_IN_ALL
