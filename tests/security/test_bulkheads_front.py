"""Attacks on the controller's connections: without a token, and with one."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import anyio
import anyio.to_thread
import psutil
import pytest

from ..support.served import Served
from .bounded import as_principal, neighbour_served, pressed

pytestmark = pytest.mark.anyio

HALF = b"GET /mcp/v1/sessions HTTP/1.1\r\nHost: "
FLOOD = 1300
DESCRIPTORS = 1024


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A controller that may open as many files as most services may: the limit cannot be raised."""
    with pressed(tmp_path_factory.mktemp("front"), descriptors=DESCRIPTORS) as served:
        yield served


def connected(served: Served, data: bytes, address: str = "127.0.0.1") -> socket.socket:
    host, _, port = served.base.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), 10, source_address=(address, 0))
    connection.sendall(data)
    return connection


def request(served: Served) -> bytes:
    host = served.base.removeprefix("http://")
    head = f"GET /mcp/v1/sessions HTTP/1.1\r\nHost: {host}\r\n"
    return f"{head}Authorization: Bearer {served.token}\r\n\r\n".encode()


def status(connection: socket.socket) -> str:
    """The status of an answer; empty when the connection was closed instead."""
    try:
        return connection.recv(65_536).partition(b" ")[2][:3].decode()
    except OSError:
        return ""


async def asked_s(served: Served, address: str) -> float:
    """How long an answer takes on a connection of its own."""

    def ask() -> float:
        began = time.monotonic()
        with connected(served, request(served), address) as connection:
            assert status(connection) == "200"
        return time.monotonic() - began

    return await anyio.to_thread.run_sync(ask)


@pytest.mark.timed
@pytest.mark.parametrize("data", [b"", HALF], ids=["silent", "half requests"])
async def test_connections_without_a_token_keep_nobody_out(controller: Served, data: bytes) -> None:
    """Invariant 3: who waits without a token makes room: others get in from elsewhere, and, as
    behind a proxy, from the same address."""
    attacker = as_principal(controller, "attacker")
    with ExitStack() as held:
        async with neighbour_served(controller):
            for number in range(FLOOD):
                held.enter_context(connected(controller, data))
                if number % 50 == 0:
                    await anyio.sleep(0.01)
            for address in ("127.0.0.1", "127.0.0.2"):
                taken = [await asked_s(attacker, address) for _ in range(10)]
                assert max(taken) < 1, address


@pytest.mark.timed
async def test_connections_that_come_all_at_once_take_no_descriptors_of_others(
    controller: Served,
) -> None:
    """Invariant 3: of many that wait to be accepted so few are taken at once that there is time to
    close those that make room."""
    attacker = as_principal(controller, "attacker")
    process = psutil.Process(controller.process.pid)
    with ExitStack() as held:
        process.suspend()
        try:
            for _ in range(DESCRIPTORS):  # more would not fit into the backlog
                held.enter_context(connected(controller, HALF))
        finally:
            process.resume()
        assert await asked_s(attacker, "127.0.0.2") < 1
    assert "out of system resource" not in controller.log.read_text(errors="replace")


async def test_half_requests_that_never_end_are_cut_off(controller: Served) -> None:
    """Invariant 3: a request head has a time limit, and a byte now and then does not prolong it."""

    def dribble() -> float:
        began = time.monotonic()
        with connected(controller, HALF) as connection:
            while time.monotonic() - began < 60:
                try:
                    connection.sendall(b"x")
                except OSError:
                    break
                time.sleep(0.5)
        return time.monotonic() - began

    assert await anyio.to_thread.run_sync(dribble) < 30


@pytest.mark.timed
async def test_one_token_does_not_take_all_that_can_be_served(controller: Served) -> None:
    """Invariant 3: a principal has so many requests under way, and those of others are served."""
    attacker = as_principal(controller, "attacker")
    host = attacker.base.removeprefix("http://")
    upload = (
        f"PUT /mcp/v1/sessions/none/files/x HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Length: 4000000\r\nAuthorization: Bearer {attacker.token}\r\n\r\n"
    )
    message = upload.replace("PUT /mcp/v1/sessions/none/files/x", "POST /mcp/v1")
    with ExitStack() as held:
        async with neighbour_served(controller):
            for number in range(600):
                data = (message if number % 2 else upload).encode() + bytes(1000)
                held.enter_context(connected(attacker, data))
                await anyio.sleep(0.005)  # what counts is what stays open, not how fast it came
            other = as_principal(controller, "neighbour")
            assert max([await asked_s(other, "127.0.0.2") for _ in range(10)]) < 1
