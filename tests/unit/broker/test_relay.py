from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from sandbox.broker.relay import relay
from sandbox.errors import SessionLost
from sandbox.link.link import ByteStream
from sandbox.link.memory import MemoryStream, pipe
from sandbox.runtimes.broker.protocol import encode_error
from sandbox.runtimes.broker.relayed import BrokerStream

pytestmark = pytest.mark.anyio

HELLO = b"\0hello"


@asynccontextmanager
async def relayed(
    tmp_path: Path, io: ByteStream, *, idle_s: float = 60
) -> AsyncIterator[tuple[BrokerStream, anyio.Event]]:
    """A controller's end of a relay, and what is set when it is over."""
    over = anyio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(reader, writer, io, idle_s=idle_s)
        writer.close()
        over.set()

    path = tmp_path / "relay.sock"
    async with await asyncio.start_unix_server(handle, path):
        with anyio.fail_after(20):
            stream = BrokerStream(*await asyncio.open_unix_connection(path))
            try:
                yield stream, over
            finally:
                await stream.close()
                await over.wait()


async def read(stream: ByteStream, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await stream.read()):
        data += more
    return data


async def test_bytes_pass_both_ways_unchanged(tmp_path: Path) -> None:
    container, io = pipe()
    there, back = os.urandom(3_000_000), b"\0" + os.urandom(3_000_000)
    got: list[bytes] = []

    async def inside() -> None:
        got.append(await read(container, len(there)))

    async with relayed(tmp_path, io) as (stream, _), anyio.create_task_group() as tasks:
        tasks.start_soon(inside)
        tasks.start_soon(stream.write, there)
        tasks.start_soon(container.write, back)
        assert await read(stream, len(back)) == back
    assert got == [there]


async def test_what_was_sent_before_the_end_arrives_before_it(tmp_path: Path) -> None:
    container, io = pipe()
    async with relayed(tmp_path, io) as (stream, over):
        await container.write(HELLO)
        await container.close()
        assert await read(stream, 100) == HELLO
        await over.wait()


async def test_a_controller_that_goes_away_ends_the_bridge(tmp_path: Path) -> None:
    container, io = pipe()
    async with relayed(tmp_path, io) as (stream, over):
        await stream.close()
        assert await container.read() == b""
        await over.wait()
    assert await stream.read() == b""


async def test_a_controller_that_only_stops_sending_ends_it_too(tmp_path: Path) -> None:
    container, io = pipe()
    async with relayed(tmp_path, io) as (stream, over):
        stream._writer.write_eof()  # pyright: ignore[reportPrivateUsage]
        assert await container.read() == b""
        await over.wait()


async def test_a_side_that_does_not_read_holds_the_other_back(tmp_path: Path) -> None:
    container, io = pipe()
    written = 0

    async def flood() -> None:
        nonlocal written
        while True:
            await container.write(b"\0" * 65536)
            written += 65536

    async with relayed(tmp_path, io) as (stream, _), anyio.create_task_group() as tasks:
        tasks.start_soon(flood)
        before = -1
        while written != before or not written:
            before = written
            await anyio.sleep(0.2)
        # The sockets' buffers and one piece on its way, whatever the kernel's defaults are.
        assert written < 4_000_000
        assert await read(stream, written)
        tasks.cancel_scope.cancel()


async def test_silence_on_both_sides_ends_it_and_a_sign_of_life_does_not(tmp_path: Path) -> None:
    container, io = pipe()
    async with relayed(tmp_path, io, idle_s=0.5) as (stream, over):
        for _ in range(4):
            await anyio.sleep(0.2)
            await container.write(b"\0")
        assert not over.is_set()
        assert len(await read(stream, 4)) == 4
        await over.wait()
        assert await stream.read() == b""


class Refusing(MemoryStream):
    """The bridge of a container in which it cannot be started."""

    async def read(self) -> bytes:
        raise SessionLost("The container's bridge could not be started: \x1b[31mno python")


async def test_a_bridge_that_cannot_be_started_is_told_as_that(tmp_path: Path) -> None:
    io, _ = pipe()
    io.__class__ = Refusing
    async with relayed(tmp_path, io) as (stream, over):
        with pytest.raises(SessionLost, match="could not be started") as caught:
            await stream.read()
        assert "\x1b" not in caught.value.message
        await over.wait()


async def test_a_link_that_begins_with_a_hello_is_passed_on_whatever_follows(
    tmp_path: Path,
) -> None:
    container, io = pipe()
    forged = encode_error(SessionLost("forged"))
    async with relayed(tmp_path, io) as (stream, _):
        await container.write(b"\0")
        assert await read(stream, 1) == b"\0"
        await container.write(forged)
        assert await read(stream, len(forged)) == forged
