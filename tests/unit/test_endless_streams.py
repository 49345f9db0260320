"""Every client of a supervisor, over one that never stops sending: what is kept has a bound."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sandbox.errors import FileError, SandboxError
from sandbox.files.files import Files
from sandbox.link import wire
from sandbox.link.link import Link
from sandbox.link.stream import Stream
from sandbox.outputs.redaction import Redactor
from sandbox.policy.models import Limits
from sandbox.server.pictures import Picture, Shown
from sandbox.server.reading import MAX_PICTURE_BYTES, read_content
from sandbox.terminals.terminals import Terminals
from sandbox.workspaces.archive import pack, unpack

from ..support.machines import scripted, serving
from ..support.results import png

pytestmark = pytest.mark.anyio

STAT = {
    **{"path": "/workspace/a", "name": "a", "type": "file", "size": 1, "mode": 420},
    **{"mtime": 1.0, "etag": "e"},
}
LISTED = {
    **{"terminal_id": "t-1", "pid": 7, "rows": 24, "cols": 80, "alive": True, "exit_code": None},
    **{"first_offset": 0, "last_offset": 0},
}
ANSWERS: dict[str, dict[str, Any]] = {
    "terminal.list": {"terminals": [LISTED]},
    "command.list": {"commands": []},
    "command.start": {},
    "command.forget": {},
}
FLOOD_S = 0.5
"""How long a client listens that has no reason to stop."""
MAX_KEPT = 24 * 1024 * 1024


async def not_shown(picture: Picture) -> Shown:
    return Shown(picture, why_not="nobody looks")


async def files_of(link: Link) -> Files:
    files = Files(Limits())
    await files.attach(link)
    return files


async def read_bytes(link: Link) -> None:
    await (await files_of(link)).read_bytes("a", 1_000_000)


async def read_file(link: Link) -> None:
    await read_content(await files_of(link), "a", 1, 2000, Redactor(), not_shown)


async def read_far_into_a_file(link: Link) -> None:
    await read_content(await files_of(link), "a", 100_000_000, 2000, Redactor(), not_shown)


async def edit(link: Link) -> None:
    await (await files_of(link)).edit("a", "x", "y")


async def stat(link: Link) -> None:
    await (await files_of(link)).stat("a")


async def run(link: Link) -> None:
    async with serving(link) as commands:
        await commands.run("true")


async def terminal(link: Link) -> None:
    terminals = Terminals(Limits())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(terminals.run)
        await terminals.attach(link)
        await anyio.sleep_forever()


async def save(link: Link) -> None:
    async def sink(data: bytes) -> None:
        await anyio.lowlevel.checkpoint()

    await pack(link, sink)


async def restore(link: Link) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    await unpack(link, pieces())


CLIENTS = [
    *(read_bytes, read_file, read_far_into_a_file, edit, stat, run, terminal, save, restore),
]
PIECES = {
    "bytes": (wire.BYTES, b"x" * 65_000),
    "lines": (wire.BYTES, b"\n" * 65_000),
    "zeros": (wire.BYTES, bytes(65_000)),
    "single bytes": (wire.BYTES, b"x"),
    "errors": (wire.STDERR, b"x" * 65_000),
    "objects": (wire.JSON, b'{"offset": 0}'),
    "kernel messages": (wire.KERNEL, bytes(65_000)),
}


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_stream_that_never_ends_costs_no_memory(
    client: Callable[[Link], Awaitable[None]], piece: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.commands.commands.STOP_GRACE_S", 0.1)
    tag, data = PIECES[piece]
    start = {"offset": 0}
    heads = {"file.read": STAT, "terminal.attach": start, "command.attach": start}

    async def serve(stream: Stream) -> None:
        if (op := str(stream.request["op"])) in ANSWERS:
            await stream.send_json(ANSWERS[op])
            return
        if head := heads.get(op):
            await stream.send_json(head)
        while True:
            await stream.send(data, tag)
            await anyio.lowlevel.checkpoint()

    async with scripted(serve) as machine:
        link = await machine.connect()
        tracemalloc.start()
        try:
            with suppress(SandboxError), anyio.move_on_after(FLOOD_S):
                await client(link)
            kept = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert kept < MAX_KEPT


async def test_of_a_file_whose_size_was_a_lie_no_more_is_read_than_is_shown() -> None:
    sent = 0

    async def serve(stream: Stream) -> None:
        nonlocal sent
        await stream.send_json(STAT)
        while True:
            await stream.send(b"x" * 65_000)
            sent += 65_000

    async with scripted(serve) as machine:
        files = await files_of(await machine.connect())
        with anyio.fail_after(10), pytest.raises(FileError) as caught:
            await read_content(files, "a", 1, 2000, Redactor(), not_shown)

    assert caught.value.reason == "too_large"
    assert sent < 2_000_000


async def test_a_picture_without_an_end_is_not_read_for_ever() -> None:
    sent = 0

    async def serve(stream: Stream) -> None:
        nonlocal sent
        await stream.send_json(STAT)
        await stream.send(png(10, 10))
        while True:
            await stream.send(b"x" * 65_000)
            sent += 65_000

    async with scripted(serve) as machine:
        files = await files_of(await machine.connect())
        with anyio.fail_after(10):
            read = await read_content(files, "a", 1, 2000, Redactor(), not_shown)

    assert read.structured_content is not None
    assert "too large to be shown" in read.structured_content["notes"][0]
    assert sent < 2 * MAX_PICTURE_BYTES


async def test_a_line_that_is_never_reached_is_not_looked_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandbox.server.reading.READ_TIMEOUT_S", 0.2)

    async def serve(stream: Stream) -> None:
        await stream.send_json(STAT | {"size": 2**60})
        while True:
            await stream.send(b"x" * 65_000)

    async with scripted(serve) as machine:
        files = await files_of(await machine.connect())
        with anyio.fail_after(10), pytest.raises(FileError) as caught:
            await read_content(files, "a", 1000, 2000, Redactor(), not_shown)

    assert caught.value.reason == "too_large"


async def test_a_part_of_a_file_is_no_longer_than_was_asked_for() -> None:
    async def serve(stream: Stream) -> None:
        await stream.send_json(STAT)
        while True:
            await stream.send(b"x" * 1000)

    got = bytearray()

    async def read(files: Files) -> None:
        async with await files.open_read("a", 0, 2500) as reading:
            async for piece in reading:
                got.extend(piece)

    async with scripted(serve) as machine:
        files = await files_of(await machine.connect())
        with anyio.fail_after(10), pytest.raises(SandboxError):
            await read(files)

    assert len(got) == 2500
