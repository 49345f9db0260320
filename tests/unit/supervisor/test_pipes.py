"""Descriptors that several tasks use at once."""

from __future__ import annotations

import asyncio
import os

import pytest

from sandbox.supervisor.pipes import Descriptor

pytestmark = pytest.mark.anyio

SIZE = 4 * 1024 * 1024
"""More than a pipe holds."""


async def test_two_who_write_are_both_woken() -> None:
    reading, writing = os.pipe()
    reader, writer = Descriptor(reading), Descriptor(writing)
    async with asyncio.timeout(30):
        async with asyncio.TaskGroup() as tasks:
            for byte in (b"a", b"b"):
                tasks.create_task(writer.write(byte * SIZE))
            got = b""
            while len(got) < 2 * SIZE:
                await asyncio.sleep(0)
                got += await reader.read()
    writer.close()
    reader.close()

    assert (got.count(b"a"), got.count(b"b")) == (SIZE, SIZE)


async def test_two_who_read_are_both_woken_and_at_the_end_too() -> None:
    reading, writing = os.pipe()
    reader, writer = Descriptor(reading), Descriptor(writing)
    async with asyncio.timeout(30):
        async with asyncio.TaskGroup() as tasks:
            one, two = (tasks.create_task(reader.read(1)) for _ in range(2))
            await asyncio.sleep(0.05)
            await writer.write(b"a")
            await writer.write(b"b")
        waiting = asyncio.create_task(reader.read())
        await asyncio.sleep(0.05)
        reader.close()
        assert await waiting == b""
    writer.close()

    assert {one.result(), two.result()} == {b"a", b"b"}
