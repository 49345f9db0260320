"""WebSockets through the gate of a real server on loopback: who gets in, and how each ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from sandbox.errors import SandboxError
from sandbox.server.credentials import BEARER, SUBPROTOCOL
from sandbox.server.desk import Desk
from sandbox.server.websockets import WebSocketBounds, WebSocketRoute, WebSockets
from sandbox.sessions.manager import SessionManager

from ...support.wsclient import BINARY, CLOSE, TEXT, frame
from ...support.wsserver import ECHO, HEADER, Server, carried, echo, nothing_else, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with serving(desk, monkeypatch) as running:
        yield running
        await running.all_leave()


async def test_a_program_shows_its_token_in_the_header(server: Server) -> None:
    client = await server.client(headers=HEADER)
    assert client.answer.status == 101
    assert "sec-websocket-protocol" not in client.answer.headers
    client.say(frame(TEXT, b"hello") + frame(BINARY, b"\0\1"))
    assert [await client.heard(), await client.heard()] == [(TEXT, b"hello"), (BINARY, b"\0\1")]


async def test_a_page_carries_its_token_in_a_sub_protocol_and_it_is_never_said_back(
    server: Server,
) -> None:
    origin = {"Origin": f"http://127.0.0.1:{server.port}"}
    client = await server.client(headers=origin, protocols=carried())
    assert client.answer.status == 101
    assert client.answer.headers["sec-websocket-protocol"] == SUBPROTOCOL
    assert BEARER not in str(client.answer)
    client.say(frame(TEXT, b"hello"))
    assert await client.heard() == (TEXT, b"hello")


async def test_a_missing_scope_is_named(server: Server) -> None:
    client = await server.client("/mcp/v1/files/s1", HEADER)
    assert 'scope="files:write"' in client.answer.headers["www-authenticate"]


async def test_every_connection_is_on_record(
    server: Server, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Any] = []
    monkeypatch.setattr(manager.audit, "record", recorded.append)
    for path in (ECHO, "/mcp/v1/other", "/mcp/v1/files/s1", "/mcp/v1/late", "/mcp/v1/broken"):
        client = await server.client(path, HEADER)
        client.close()
    await server.is_left_by_all()
    found = {each.tool: (each.outcome, each.code, each.session_id) for each in recorded}
    assert found == {
        "WEBSOCKET /echo": ("ok", "", ""),
        "WEBSOCKET /other": ("refused", "not_found", ""),
        "WEBSOCKET /files/{session_id}": ("refused", "not_permitted", "s1"),
        "WEBSOCKET /late": ("refused", "conflict", ""),
        "WEBSOCKET /broken": ("failed", "defect", ""),
    }
    assert {(each.principal, each.token_id, each.transport) for each in recorded} == {
        ("alice", "1234", "websocket")
    }


async def test_nothing_is_served_that_cannot_be_put_on_record(
    server: Server, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot() -> None:
        raise SandboxError("The disk is full.")

    monkeypatch.setattr(manager.audit, "require", cannot)
    assert (await server.client(headers=HEADER)).answer.status == 500


@pytest.mark.parametrize(("path", "code"), [("/late", 4409), ("/broken", 1011)])
async def test_an_error_after_the_handshake_is_told_by_the_close_code(
    server: Server, path: str, code: int
) -> None:
    client = await server.client(f"/mcp/v1{path}", HEADER)
    assert await client.close_code() == code


async def test_a_connection_counts_among_the_requests_of_its_principal(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(desk, monkeypatch, most=1) as server:
        assert (await server.client(headers=HEADER)).answer.status == 101
        assert (await server.client(headers=HEADER)).answer.status == 429


@pytest.mark.timed
@pytest.mark.parametrize(
    ("bounds", "is_talking"),
    [(WebSocketBounds(idle_s=0.2), False), (WebSocketBounds(total_s=0.4), True)],
)
async def test_neither_silence_nor_talk_lasts_for_ever(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, bounds: WebSocketBounds, is_talking: bool
) -> None:
    async with serving(desk, monkeypatch, bounds=bounds) as server:
        client = await server.client(headers=HEADER)
        started, opcode = time.monotonic(), TEXT
        while opcode == TEXT and is_talking:
            client.say(frame(TEXT, b"x"))
            opcode, data = await client.heard()
            await anyio.sleep(0.02)
        if not is_talking:
            opcode, data = await client.heard()
        assert (opcode, int.from_bytes(data[:2], "big")) == (CLOSE, 4408)
        assert time.monotonic() - started < 3


async def test_a_server_that_stops_closes_every_connection(server: Server, desk: Desk) -> None:
    client = await server.client(headers=HEADER)
    desk.stop()
    assert await client.close_code() == 1001
    late = await server.client(headers=HEADER)
    assert await late.close_code() == 1001
    await server.uvicorn.shutdown([])


async def test_a_handshake_has_no_more_headers_than_a_request(server: Server) -> None:
    headers = HEADER | {f"X-{number}": "y" for number in range(200)}
    assert (await server.client(headers=headers)).answer.status == 431


async def test_a_handshake_that_is_none_is_refused(server: Server) -> None:
    client = await server.client(headers=HEADER | {"Sec-WebSocket-Version": "7"})
    assert client.answer.status == 426


async def test_a_handshake_without_a_token_does_not_keep_its_connection(server: Server) -> None:
    client = await server.client()
    assert client.answer.status == 401
    await server.is_left_by_all()


async def test_a_path_that_has_no_scope_is_not_served(desk: Desk) -> None:
    with pytest.raises(ValueError, match="no scope"):
        WebSockets(nothing_else, [WebSocketRoute("/unknown", echo)], desk)
