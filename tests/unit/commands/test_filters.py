"""A program of the controller's own: what it is given, and what is taken of it."""

from __future__ import annotations

import pytest

from sandbox.commands.filters import lines_of
from sandbox.errors import ProtocolError
from sandbox.link import wire
from sandbox.link.link import Link
from sandbox.link.stream import Stream

from ...support.machines import scripted

pytestmark = pytest.mark.anyio

ARGV = ("/usr/bin/python3", "-I")


async def taken(link: Link, given: bytes = b"", limit_bytes: int = 1000) -> list[bytes]:
    lines = lines_of(link, ARGV, given, timeout_s=5, limit_bytes=limit_bytes)
    return [line async for line in lines]


async def test_it_reads_what_it_is_given_and_its_lines_come_whole() -> None:
    heard: list[bytes] = []
    asked: dict[str, object] = {}

    async def serve(stream: Stream) -> None:
        asked.update(stream.request)
        async for message in stream:
            heard.append(message.data)
        for piece in (b"on", b"e\ntwo\nth", b"ree\n", b"rest"):
            await stream.send(piece)
        await stream.send(b"a complaint\n", wire.STDERR)
        await stream.send_json({"exit_code": 0})
        stream.end()

    async with scripted(serve) as machine:
        assert await taken(await machine.connect(), b"x" * 200_000) == [b"one", b"two", b"three"]
    assert b"".join(heard) == b"x" * 200_000
    assert (asked["argv"], asked["timeout_s"]) == (list(ARGV), 5)


async def test_what_it_writes_is_bounded() -> None:
    async def serve(stream: Stream) -> None:
        while True:
            await stream.send(b"x" * 60_000)

    async with scripted(serve) as machine:
        link = await machine.connect()
        with pytest.raises(ProtocolError):
            await taken(link)
