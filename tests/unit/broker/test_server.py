from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import anyio
import pytest

from sandbox.broker.server import serving
from sandbox.errors import ConfigError, EngineUnavailable, NotPermitted, QuotaExceeded
from sandbox.runtimes.broker.protocol import MAX_REQUEST_BYTES
from sandbox.runtimes.broker.runtime import BrokerRuntime
from sandbox.testing import FakeEngine, FakeRuntime

from .brokers import broker, said, served

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeRuntime:
    return FakeRuntime(FakeEngine(runtimes=("runc", "runsc")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.sock"


@pytest.mark.parametrize("others", [frozenset[int](), frozenset({10001})])
async def test_the_socket_is_private_to_whom_it_is_for_and_gone_at_the_end(
    engine: FakeRuntime, path: Path, others: frozenset[int]
) -> None:
    async with serving(broker(engine), path, uids=others, max_connections=1):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o660 if others else 0o600)
    assert not path.exists()


async def test_a_peer_of_another_uid_is_told_so_and_gets_nothing(
    engine: FakeRuntime, path: Path
) -> None:
    async with served(engine, path) as (client, server):
        server._uids = frozenset({os.geteuid() + 1})  # pyright: ignore[reportPrivateUsage]  # we are then the stranger
        for _ in range(3):
            with pytest.raises(NotPermitted, match=str(os.geteuid())):
                await client.engine()


async def test_a_socket_that_a_dead_broker_left_is_replaced_and_a_live_ones_is_not(
    engine: FakeRuntime, path: Path
) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with served(engine, path) as (client, _):
        with pytest.raises(ConfigError, match="listens"):
            async with served(engine, path):
                pass
        assert (await client.engine()).name == "fake"


async def test_a_file_in_the_sockets_place_is_left_alone(engine: FakeRuntime, path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(ConfigError):
        async with served(engine, path):
            pass
    assert path.read_text() == "precious"


async def test_a_request_without_end_is_cut_off(engine: FakeRuntime, path: Path) -> None:
    async with served(engine, path) as (client, _):
        answer = await said(path, b'{"op":"' + b"x" * (MAX_REQUEST_BYTES + 70_000))
        assert answer["error"]["code"] == "invalid_request"
        assert (await client.engine()).name == "fake"


async def test_a_request_that_stops_in_the_middle_is_given_up(
    engine: FakeRuntime, path: Path
) -> None:
    async with served(engine, path) as (client, server):
        server._request_timeout_s = 0.2  # pyright: ignore[reportPrivateUsage]
        answer = await said(path, b'{"op":"eng')
        assert "within 0.2 s" in answer["error"]["message"]
        answer = await said(path, b'{"op":"eng', and_end=True)
        assert answer["error"]["message"] == "The request has no end."
        assert (await client.engine()).name == "fake"


async def test_connections_past_the_bound_are_told_so_and_the_others_go_on(
    engine: FakeRuntime, path: Path
) -> None:
    async with served(engine, path, max_connections=3) as (client, _):
        waiting = [await asyncio.open_unix_connection(path) for _ in range(3)]
        for _, writer in waiting:
            writer.write(b'{"op":')
        with pytest.raises(QuotaExceeded):
            await client.engine()
        reader, writer = waiting[0]
        writer.write(b'"engine"}\n')
        assert json.loads(await reader.readline())["ok"]["name"] == "fake"
        for _, writer in waiting:
            writer.transport.abort()
        with anyio.fail_after(10):
            while True:
                try:
                    assert (await client.engine()).name == "fake"
                    break
                except QuotaExceeded:
                    await anyio.sleep(0.01)  # until the broker has noticed that they are gone


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"op":"exec","container":"x"}',
        b'{"op":"start"}',
        b'{"op":"start","container":"../../containers/x"}',
        b'{"op":"start","container":"' + b"a" * 12 + b'"}',
        b'{"op":"remove","container":"sandbox-name"}',
        b'{"op":"list","labels":{"a":1}}',
        b'{"op":"engine","more":1}',
        b'{"op":"create","spec":{}}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"GET /containers/json HTTP/1.1\r",
    ],
)
async def test_what_is_no_request_is_refused_and_harms_nobody(
    engine: FakeRuntime, path: Path, line: bytes
) -> None:
    async with served(engine, path) as (client, _):
        answer = await said(path, line + b"\n")
        assert answer["error"]["code"] == "invalid_request"
        assert (await client.engine()).name == "fake"


async def test_a_defect_ends_its_own_connection_alone(
    engine: FakeRuntime, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: object) -> None:
        raise RuntimeError("a defect")

    async with served(engine, path) as (client, _):
        with monkeypatch.context() as patch:
            patch.setattr(FakeRuntime, "engine", broken)
            answer = await said(path, b'{"op":"engine"}\n')
        assert answer["error"]["code"] == "infrastructure_error"
        assert "defect" not in answer["error"]["message"]
        assert (await client.engine()).name == "fake"


async def test_a_broker_that_is_not_there_is_an_engine_that_is_unavailable(
    engine: FakeRuntime, path: Path
) -> None:
    client = BrokerRuntime(f"broker://{path}")
    with pytest.raises(EngineUnavailable, match="nothing listens"):
        await client.engine()
    async with served(engine, path):
        assert (await client.engine()).name == "fake"
    with pytest.raises(EngineUnavailable, match="nothing listens"):
        await client.engine()
