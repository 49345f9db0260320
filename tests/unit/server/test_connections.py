"""Connections of a real server on loopback: who has to make room, and how long each may wait."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import anyio
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from sandbox.server import connections
from sandbox.server.connections import MAX_DESCRIPTORS, Connections

from ...support import applications

pytestmark = pytest.mark.anyio

HALF = b"GET / HTTP/1.1\r\nHost: x\r\n"
WITH_TOKEN = HALF + b"Authorization: yes\r\n\r\n"
WITHOUT = HALF + b"\r\n"
PARKED = b"GET /parked HTTP/1.1\r\nHost: x\r\nAuthorization: yes\r\n\r\n"


class Guarded:
    """An application that knows a token; below ``/parked`` it answers when it may go on."""

    def __init__(self) -> None:
        self.go = anyio.Event()
        self.parked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 401
        if (b"authorization", b"yes") in scope["headers"]:
            scope["sandbox.grant"] = object()
            status = 200
        if scope["path"] == "/parked":
            self.parked += 1
            await self.go.wait()
        await PlainTextResponse("answer", status)(scope, receive, send)


@asynccontextmanager
async def listening(
    most: int, most_per_address: int
) -> AsyncIterator[tuple[int, Connections, Guarded]]:
    app, kept = Guarded(), Connections(most, most_per_address)
    config = uvicorn.Config(
        app,
        http=kept.protocol,  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    async with applications.listening(config) as (_, listener):
        try:
            yield listener.getsockname()[1], kept, app
        finally:
            app.go.set()
            for caller in Caller.made:
                caller.close()
            Caller.made.clear()


class Caller:
    """A connection from an address of loopback."""

    made: ClassVar[list[Caller]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made.append(self)
        self._reader = reader
        self._writer = writer

    @classmethod
    async def of(cls, port: int, data: bytes = b"", address: str = "127.0.0.1") -> Caller:
        pair = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        caller = cls(*pair)
        await caller.say(data)
        return caller

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> bytes:
        """The status of the next answer; empty when the connection was closed instead."""
        try:
            with anyio.fail_after(5):
                head = await self._reader.readuntil(b"\r\n\r\n")
                await self._reader.readexactly(len("answer"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        return head.split()[1]

    async def is_open(self) -> bool:
        """Whether nothing came of it yet."""
        try:
            with anyio.move_on_after(0.05):
                return bool(await self._reader.read(1))
        except ConnectionError:
            return False
        return True

    def close(self) -> None:
        self._writer.close()


async def asked(port: int, data: bytes = WITH_TOKEN, address: str = "127.0.0.1") -> bytes:
    caller = await Caller.of(port, data, address)
    answer = await caller.answer()
    caller.close()
    return answer


async def test_half_requests_make_room_for_a_newer_one_the_oldest_first() -> None:
    async with listening(100, 10) as (port, _, _):
        halves = [await Caller.of(port, HALF) for _ in range(10)]
        assert await asked(port) == b"200"
        assert [await each.is_open() for each in halves] == [False] + [True] * 9


async def test_another_address_is_served_while_one_has_its_share() -> None:
    async with listening(20, 15) as (port, _, _):
        halves = [await Caller.of(port, HALF) for _ in range(60)]
        assert await asked(port, address="127.0.0.2") == b"200"
        open_ones = [each for each in halves if await each.is_open()]
        assert len(open_ones) == 15


async def test_when_all_are_too_many_the_address_with_most_makes_room() -> None:
    async with listening(12, 10) as (port, _, _):
        neighbour = await Caller.of(port, HALF, "127.0.0.2")
        halves = [await Caller.of(port, HALF) for _ in range(10)]
        late = await Caller.of(port, HALF, "127.0.0.3")
        assert await asked(port, address="127.0.0.4") == b"200"
        assert await neighbour.is_open()
        assert await late.is_open()
        assert not await halves[0].is_open()


async def test_what_is_served_for_a_token_is_never_cut_off() -> None:
    async with listening(100, 4) as (port, _, app):
        parked = [await Caller.of(port, PARKED) for _ in range(4)]
        while app.parked < 4:
            await anyio.sleep(0.01)
        assert await asked(port) == b""
        assert await asked(port, address="127.0.0.2") == b"200"
        app.go.set()
        assert [await each.answer() for each in parked] == [b"200"] * 4
        assert await asked(port) == b"200"


async def test_idle_clients_with_a_token_go_after_strangers() -> None:
    async with listening(100, 6) as (port, _, _):
        client = await Caller.of(port, WITH_TOKEN)
        assert await client.answer() == b"200"
        halves = [await Caller.of(port, HALF) for _ in range(30)]
        await client.say(WITH_TOKEN)
        assert await client.answer() == b"200"
        assert not await halves[0].is_open()


async def test_a_stranger_that_does_not_read_its_answers_makes_room() -> None:
    """Being served is no protection without a token."""
    async with listening(100, 4) as (port, _, app):
        unread = PARKED.replace(b"yes", b"no")
        strangers = [await Caller.of(port, unread) for _ in range(4)]
        while app.parked < 4:
            await anyio.sleep(0.01)
        assert await asked(port) == b"200"
        assert not await strangers[0].is_open()


@pytest.mark.parametrize(
    "data", [b"", HALF, WITHOUT, WITHOUT + HALF, PARKED.replace(b"yes", b"no")]
)
async def test_nobody_waits_for_ever(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WAITING_S", 0.3)
    async with listening(100, 100) as (port, kept, _):
        caller = await Caller.of(port, data)
        with anyio.fail_after(5):
            for _ in range(100):  # a byte now and then does not prolong it
                try:
                    await caller.say(b"x" if data else b"")
                except ConnectionError:
                    break
                if kept.count == 0:
                    break
                await anyio.sleep(0.05)
        assert kept.count == 0


async def test_a_body_that_is_not_wanted_is_not_taken_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "WAITING_S", 0.3)
    async with listening(100, 100) as (port, kept, _):
        caller = await Caller.of(port, WITHOUT.replace(b"Host", b"Content-Length: 9999999\r\nHost"))
        assert await caller.answer() == b"401"
        with anyio.fail_after(5):
            while kept.count:
                try:
                    await caller.say(b"x")
                except ConnectionError:
                    break
                await anyio.sleep(0.05)


async def test_connections_that_are_over_count_no_longer() -> None:
    async with listening(100, 10) as (port, kept, _):
        for _ in range(50):
            (await Caller.of(port, HALF)).close()
        with anyio.fail_after(5):
            while kept.count:
                await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1::5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::9", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_network_of_one_customer_counts_as_one_address(address: str, network: str) -> None:
    assert connections._network(address) == network


def test_the_limit_of_descriptors_is_raised_as_far_as_it_goes() -> None:
    code = (
        "import resource; from sandbox.server.connections import raise_descriptor_limit as up;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, {hard}));"
        "print(up(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    _, own = resource.getrlimit(resource.RLIMIT_NOFILE)
    for hard in (300, own):
        most = min(hard, MAX_DESCRIPTORS) if hard != resource.RLIM_INFINITY else MAX_DESCRIPTORS
        told = subprocess.check_output([sys.executable, "-c", code.format(hard=hard)])
        assert told.split() == [str(each).encode() for each in (most, most, hard)]
