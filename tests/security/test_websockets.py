"""Attacks through WebSockets: who must not get in, and who sends or holds too much."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from sandbox import resources
from sandbox.bulkheads.shares import Shares
from sandbox.cli.wiring import session_manager
from sandbox.config import Settings
from sandbox.policy import load
from sandbox.server import auth, framing
from sandbox.server.credentials import BEARER, SUBPROTOCOL
from sandbox.server.desk import Desk
from sandbox.server.websockets import WebSocketBounds
from sandbox.sessions.slots import take_slot
from sandbox.testing import FakeEngine, FakeRuntime

from ..support.wsclient import BINARY, PING, PONG, TEXT, WsClient, frame
from ..support.wsserver import ECHO, HEADER, TOKEN, Server, carried, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Sessions whose engine is in memory: none is opened here."""
    state = tmp_path / "state"
    with take_slot(state, "serve") as slot:
        async with session_manager(
            FakeRuntime(FakeEngine()),
            load(resources.policies()),
            Settings(state_dir=state),
            slot,
            image_for=lambda name: f"sandbox/{name}:test",
            keep=False,
        ) as manager:
            yield Desk(manager)


@pytest.fixture
async def server(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with serving(desk, monkeypatch) as running:
        yield running
        await running.all_leave()


@pytest.mark.parametrize(
    ("path", "headers", "protocols"),
    [
        (ECHO, {}, []),
        (ECHO, {}, [SUBPROTOCOL]),
        (ECHO, {"Authorization": f"Bearer {TOKEN}x"}, []),
        (ECHO, {}, carried(TOKEN + "x")),
        (ECHO, {}, carried()[1:]),
        (ECHO, {}, [SUBPROTOCOL, BEARER + TOKEN]),
        (ECHO, {}, [SUBPROTOCOL, BEARER]),
        (ECHO, {}, [SUBPROTOCOL, BEARER + "a" * 20_000]),
        (ECHO, {}, [*carried(), *carried()[1:]]),
        (ECHO, HEADER, carried()),
        (f"{ECHO}?token={TOKEN}&access_token={TOKEN}", {}, [SUBPROTOCOL]),
        (ECHO, {"Cookie": f"token={TOKEN}"}, []),
        ("/", {}, []),
        ("/healthz", {}, []),
    ],
)
async def test_without_one_good_token_nobody_gets_in(
    server: Server, path: str, headers: dict[str, str], protocols: list[str]
) -> None:
    """Invariant 6: one token, in a header or a sub-protocol; none in an address or a cookie."""
    client = await server.client(path, headers, protocols)
    assert client.answer.status == 401
    assert client.answer.headers["content-type"] == "application/problem+json"
    assert client.answer.headers["www-authenticate"].startswith("bearer")
    assert TOKEN not in str(client.answer)
    assert server.denied == ["token"]


@pytest.mark.parametrize("protocols", [[], carried()])
@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Origin", "http://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "http://127.0.0.1.evil.example", 403),
        ("Host", "evil.example", 421),
        ("Host", "127.0.0.1.evil.example", 421),
    ],
)
async def test_a_page_of_another_origin_or_a_rebound_host_is_refused_with_any_token(
    server: Server, header: str, value: str, status: int, protocols: list[str]
) -> None:
    """Invariant 6: a page that is not ours opens nothing, whatever it has stolen."""
    headers = {header: value, **({} if protocols else HEADER)}
    client = await server.client(headers=headers, protocols=protocols)
    assert client.answer.status == status
    assert server.denied == [header.lower()]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/mcp/v1", 404),
        ("/mcp/v1/", 404),
        ("/mcp/v1/echo/", 404),
        ("/mcp/v1/echo%0A", 404),
        ("/mcp/v1/other", 404),
        ("/mcp/v1/sessions", 404),
        ("/healthz", 404),
        ("/mcp/v1/files/s1", 403),
        ("/mcp/v1/early", 409),
    ],
)
async def test_what_may_not_be_served_is_refused_before_it_is_accepted(
    server: Server, path: str, status: int
) -> None:
    """Invariant 6: no path without a scope, and none without the token's having it."""
    client = await server.client(path, HEADER)
    assert client.answer.status == status
    assert json.loads(client.answer.body)["status"] == status


async def test_a_principal_has_so_many_and_leaves_the_rest_to_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: connections are bounded, of each principal and in all."""
    places = Shares("WebSocket connections", 8, 3, 3)
    async with serving(desk, monkeypatch, places=places) as server:
        server.verifier.grants["other"] = replace(server.verifier.grants[TOKEN], principal="bob")
        mine = [await server.client(headers=HEADER) for _ in range(4)]
        assert [each.answer.status for each in mine] == [101, 101, 101, 429]
        other = await server.client(headers={"Authorization": "Bearer other"})
        assert other.answer.status == 101
        mine[0].close()
        with anyio.fail_after(5):
            while places.taken == 4:
                await anyio.sleep(0.01)
        assert (await server.client(headers=HEADER)).answer.status == 101


async def test_a_revoked_token_closes_what_it_has_open(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 6: what a token has open ends with it."""
    monkeypatch.setattr(auth, "RECHECK_S", 0.05)
    client = await server.client(headers=HEADER)
    client.say(frame(TEXT, b"x"))
    assert await client.heard() == (TEXT, b"x")
    server.verifier.grants.clear()
    assert await client.close_code() == 4401


@pytest.mark.parametrize("parts", [1, 3])
async def test_a_message_that_is_too_long_ends_the_connection(server: Server, parts: int) -> None:
    """Invariant 3: a message is bounded, in one piece or in many."""
    client = await server.client(headers=HEADER)
    data = bytes(framing.MAX_MESSAGE_BYTES // parts + 1)
    for part in range(parts):
        opcode = BINARY if part == 0 else 0
        client.say(frame(opcode, data, is_last=part == parts - 1))
    assert await client.close_code() in (1009, 0)


async def test_a_length_that_is_only_announced_takes_no_memory(server: Server) -> None:
    """Invariant 3: what a frame announces is not believed."""
    client = await server.client(headers=HEADER)
    client.say(frame(BINARY, b"")[:1] + b"\xff" + (2**62).to_bytes(8, "big") + bytes(4))
    client.say(bytes(framing.MAX_MESSAGE_BYTES + 1))
    assert await client.close_code() in (1009, 0)


@pytest.mark.timed
@pytest.mark.parametrize(
    "flood",
    [
        frame(PING, b""),
        frame(PONG, b""),
        frame(0, b"", is_last=False),
        frame(TEXT, b""),
    ],
    ids=["ping", "pong", "fragments", "messages"],
)
async def test_a_flood_of_frames_holds_nobody_else_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, flood: bytes
) -> None:
    """Invariant 3: of 700,000 frames each second lets a few hundred through."""
    async with serving(desk, monkeypatch) as server:
        honest, hostile = [await server.client(headers=HEADER) for _ in range(2)]
        await _flooded(honest, hostile, flood)


async def _flooded(honest: WsClient, hostile: WsClient, flood: bytes) -> None:
    if flood[0] & 15 == 0:
        hostile.say(frame(TEXT, b"x", is_last=False))
    hostile.say(flood * (4_000_000 // len(flood)))
    waits: list[float] = []
    for _ in range(40):
        started = time.monotonic()
        honest.say(frame(TEXT, b"x"))
        assert await honest.heard() == (TEXT, b"x")
        waits.append(time.monotonic() - started)
        await anyio.sleep(0.01)
    assert sorted(waits)[len(waits) // 2] < 0.1
    assert max(waits) < 0.5


async def test_who_pings_and_reads_no_answer_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: answers that nobody reads do not pile up."""
    monkeypatch.setattr(framing, "FRAMES_AT_ONCE", 1_000_000)
    monkeypatch.setattr(framing, "FRAMES_PER_S", 1_000_000)
    monkeypatch.setattr(framing, "MAX_UNSENT_BYTES", 16 * 1024)
    hostile = await server.client(headers=HEADER)
    with anyio.fail_after(20), suppress(ConnectionError):
        while server.connections.count:
            hostile.say(frame(PING, bytes(125)) * 500)
            await hostile.drained()


async def test_a_client_that_does_not_read_is_given_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: who takes nothing is not sent more, and holds no connection."""
    monkeypatch.setattr(framing, "CLOSING_S", 0.1)
    async with serving(desk, monkeypatch, bounds=WebSocketBounds(send_s=0.2)) as server:
        await server.client("/mcp/v1/pour", HEADER)
        await server.is_left_by_all()
