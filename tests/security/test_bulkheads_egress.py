"""Attacks on what the ways out of all sessions share: from real containers, beside a neighbour.

Names, addresses and servers are a test's own, as in ``test_egress.py``; names are looked up by the
real resolver, whose blocking function is the test's own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace

import anyio
import pytest

from sandbox import resources
from sandbox.bulkheads.shares import Shares
from sandbox.cli.wiring import session_manager
from sandbox.config import Settings
from sandbox.egress.dialing import SystemResolver
from sandbox.policy import load
from sandbox.policy.destinations import Address
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.slots import take_slot

from ..support.outside import PUBLIC, Outside, server
from .conftest import RUNTIME, Attacked
from .inside import connect, status, through

pytestmark = pytest.mark.anyio

POLICY = """\
version: 1
network:
  allow:
    - {domain: "*.silent.example"}
    - {domain: www.allowed.example}
    - {domain: plain.example, http: true, methods: [GET], paths: [/public/*]}
    - {cidr: 93.184.215.0/24, ports: [5432]}
  limits: {connections: 32, rate: 6000}
"""
HELD_UP_S = 0.5
"""Of the controller's processor time; what others take of the machine is not counted."""


class World(Outside):
    """The outside of the sessions here: names below ``silent.example`` get no answer."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over = threading.Event()
        self.stuck = 0
        self.requests: list[bytes] = []
        self.egress = replace(
            self.egress,
            resolver=SystemResolver(self.look_up),
            places=Shares("connections", 64, 24, 24),
        )

    def look_up(self, name: str) -> tuple[Address, ...]:
        """What takes the place of the system's own look-up; blocks as that does."""
        if name.endswith("silent.example"):
            self.stuck += 1
            self.is_over.wait(120)
        return (PUBLIC,)

    @contextmanager
    def silence(self) -> Iterator[None]:
        """During the block such a look-up blocks; at its end all that do are let go."""
        self.is_over.clear()
        self.stuck = 0
        try:
            yield
        finally:
            self.is_over.set()

    async def page(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Remember what came, and answer."""
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Stay until the other side leaves."""
        while await reader.read(65536):
            pass


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    made = World()
    async with AsyncExitStack() as stack:
        hold = await stack.enter_async_context(server(made.hold))
        page = await stack.enter_async_context(server(made.page))
        made.roads.ports |= {(PUBLIC, 443): hold, (PUBLIC, 5432): hold, (PUBLIC, 80): page}
        yield made


@pytest.fixture(scope="module")
async def manager(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SessionManager]:
    """A controller whose gateway leads to that outside."""
    folder = tmp_path_factory.mktemp("bulkheads")
    (folder / "policies").mkdir()
    (folder / "policies/out.yaml").write_text(POLICY)
    settings = Settings(
        state_dir=folder / "state",
        runtime=RUNTIME,  # pyright: ignore[reportArgumentType]  # checked by the model
    )
    engine = DockerRuntime.connect_engine()
    try:
        with take_slot(settings.state_dir, "run") as slot:
            policies = load(resources.policies(), folder / "policies")
            async with session_manager(
                engine, policies, settings, slot, egress=world.egress, keep=False
            ) as opened:
                yield opened
    finally:
        await engine.aclose()


@asynccontextmanager
async def opened(manager: SessionManager, principal: str) -> AsyncIterator[Attacked]:
    caller = Caller(principal)
    session = await manager.open(caller, policy="out", reuse=False)
    try:
        yield Attacked(session, manager, caller)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(60):
            await manager.close(caller, session.session_id)


@pytest.fixture
async def attackers(manager: SessionManager) -> AsyncIterator[tuple[Attacked, Attacked]]:
    """Two sessions of one principal."""
    async with opened(manager, "mallory") as one, opened(manager, "mallory") as other:
        yield one, other


@pytest.fixture
async def honest(manager: SessionManager) -> AsyncIterator[Attacked]:
    """Another principal's session."""
    async with opened(manager, "ada") as attacked:
        yield attacked


def reach(authority: str, times: int) -> object:
    """Runs inside: how often a tunnel is given, and the longest that one took."""
    import socket
    import time

    given, worst_s = 0, 0.0
    for _ in range(times):
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", 3128), timeout=30) as way:
            way.sendall(connect(authority))
            given += status(way.recv(4096).decode("latin-1")) == 200
        worst_s = max(worst_s, time.monotonic() - began)
    return {"given": given, "worst_s": worst_s}


def hold(authorities: list[str], seconds: float) -> list[int]:
    """Runs inside: ask for all of these tunnels at once, keep them, say how each was answered."""
    import socket
    import time

    ways = [socket.create_connection(("127.0.0.1", 3128)) for _ in authorities]
    for way, authority in zip(ways, authorities, strict=True):
        way.sendall(connect(authority))
        way.settimeout(seconds)
    answers, until = [], time.monotonic() + seconds
    for way in ways:
        try:
            answers.append(status(way.recv(4096).decode("latin-1")))
        except OSError:
            answers.append(0)
    time.sleep(max(0.0, until - time.monotonic()))
    return answers


@pytest.mark.timed
async def test_names_that_are_never_answered_hold_up_nobody_else(
    attackers: tuple[Attacked, Attacked], honest: Attacked, world: World
) -> None:
    """Policy rule network: look-ups have a share for each session and principal; those that hang
    take no thread that others need, and the neighbour's names resolve as ever."""
    silent = [f"n{number}.silent.example:443" for number in range(11)]
    with world.silence():
        async with anyio.create_task_group() as tasks:
            for attacker in attackers:
                tasks.start_soon(attacker.attack, hold, silent, 14)
            with anyio.fail_after(60):
                while world.stuck < 8:  # four threads for each of their sessions
                    await anyio.sleep(0.05)
            found = await honest.attack(reach, "www.allowed.example:443", 5)
    assert found["given"] == 5
    assert found["worst_s"] < 8, "a look-up is given up after 10 s"
    told = attackers[0].session.info().network.denials
    assert {denial.rule for denial in told} == {"unreachable"}
    assert any("names that are being looked up" in denial.reason for denial in told)


async def test_a_principals_connections_leave_others_theirs(
    attackers: tuple[Attacked, Attacked], honest: Attacked
) -> None:
    """Policy rule network.limits: what all sessions of a principal connect to at once is bounded
    beside what the policy gives to each, and others have room."""
    async with anyio.create_task_group() as tasks:
        found: list[list[int]] = []

        async def attack(attacker: Attacked) -> None:
            found.append(await attacker.attack(hold, ["93.184.215.14:5432"] * 32, 8))

        for attacker in attackers:
            tasks.start_soon(attack, attacker)
        with anyio.fail_after(60):
            while sum(a.session.info().network.open_connections for a in attackers) < 24:
                await anyio.sleep(0.05)
        assert (await honest.attack(reach, "93.184.215.14:5432", 10))["given"] == 10
    assert [answer for answers in found for answer in answers].count(200) == 24
    rules = {d.rule for a in attackers for d in a.session.info().network.denials}
    assert "built-in: share of connections" in rules


async def test_a_greeting_in_crumbs_holds_up_nobody(
    attackers: tuple[Attacked, Attacked], honest: Attacked
) -> None:
    """Policy rule network: a ClientHello in records of one byte, and heads of requests a byte at a
    time, cost time in proportion to their bytes, a piece at a time."""

    def crumble() -> object:
        import socket

        hello = b"\x01\0\x7f\xff" + bytes(10_900)
        flood = b"".join(b"\x16\x03\x01\0\x01" + hello[at : at + 1] for at in range(len(hello)))
        answers = []
        for start in (connect("www.allowed.example:443"), b""):
            with socket.create_connection(("127.0.0.1", 3128), timeout=60) as way:
                way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                way.sendall(start)
                if start:
                    way.recv(4096)
                data = flood if start else b"GET http://plain.example/" + b"x" * 60_000
                try:
                    for at in range(0, len(data), 1):
                        way.send(data[at : at + 1])
                    way.shutdown(socket.SHUT_WR)
                    answers.append(way.recv(4096).decode("latin-1"))
                except OSError as exc:
                    answers.append(str(exc))
        return answers

    worst_s, is_over = 0.0, False

    async def watch() -> None:
        nonlocal worst_s
        while not is_over:
            began = time.process_time()
            await asyncio.sleep(0.001)
            worst_s = max(worst_s, time.process_time() - began)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await attackers[0].attack(crumble)
        assert (await honest.cell("1 + 1")).status == "ok"
        is_over = True
    assert worst_s < HELD_UP_S
    rules = {denial.rule for denial in attackers[0].session.info().network.denials}
    assert {"built-in: TLS only", "built-in: malformed request"} <= rules


async def test_no_header_names_another_request_than_was_judged(
    honest: Attacked, world: World
) -> None:
    """Policy rule network.allow: where methods and paths are judged, no header that servers take
    for another method, path or host arrives, nor a double of one that says where a message ends."""

    def ask() -> object:
        lines = ("X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Forwarded-Prefix: /admin")
        lines += ("X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE", "X_Method: PUT")
        lines += ("X-HTTP-Method: DELETE", "X-Forwarded-Host: a.example", "Forwarded: host=a")
        lines += ("x_original_url: /admin", "Content_Length: 99", "Transfer_Encoding: chunked")
        found = {}
        for line in (*lines, "X-Own: 1"):
            tail = f"/public/x HTTP/1.1\r\nHost: plain.example\r\n{line}\r\n\r\n"
            found[line] = status(through(f"GET http://plain.example{tail}".encode()))
            inner = through(connect("plain.example:80"), f"GET {tail}".encode())
            found[f"tunnel {line}"] = status(inner.partition("\r\n\r\n")[2])
        return found

    world.requests.clear()
    answers = await honest.attack(ask)
    assert {line: answers.pop(line) for line in ("X-Own: 1", "tunnel X-Own: 1")} == {
        "X-Own: 1": 200,
        "tunnel X-Own: 1": 200,
    }
    assert set(answers.values()) == {403, 400}
    assert len(world.requests) == 2
    assert all(b"X-Own: 1" in request for request in world.requests)
