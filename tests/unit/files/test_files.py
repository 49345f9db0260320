"""Files over supervisors in memory, real ones and lying ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox.errors import FileError, InfrastructureError, InvalidRequest, LinkLost, ProtocolError
from sandbox.files.files import Files
from sandbox.link import wire
from sandbox.link.stream import Stream
from sandbox.policy.models import Limits

from ...support.machines import Machine, fake_machine, host_machine, scripted

pytestmark = pytest.mark.anyio

STAT = {
    **{"path": "/workspace/a", "name": "a", "type": "file", "size": 1, "mode": 420},
    **{"mtime": 1.0, "etag": "e"},
}


async def files_of(machine: Machine) -> Files:
    files = Files(Limits())
    await files.attach(await machine.connect())
    return files


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    async with fake_machine() as (machine, _):
        yield await files_of(machine)


@asynccontextmanager
async def answered(answer: Callable[[Stream], Coroutine[Any, Any, None]]) -> AsyncIterator[Files]:
    async with scripted(answer) as machine:
        yield await files_of(machine)


async def test_what_is_written_is_read_back(files: Files) -> None:
    data = bytes(range(256)) * 2000
    stat = await files.write("folder/data.bin", data)
    whole, same = await files.read_bytes("folder/data.bin", 1_000_000)
    async with await files.open_read("folder/data.bin", 1000, 500) as reading:
        part = b"".join([piece async for piece in reading])

    assert stat.size == len(data)
    assert whole == data
    assert same.etag == stat.etag
    assert part == data[1000:1500]


async def test_a_file_can_be_written_in_pieces_and_added_to(files: Files) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000

    assert (await files.write("big", pieces())).size == 5_000_000
    assert (await files.write("big", b"end", append=True)).size == 5_000_003


async def test_directories_are_listed_made_moved_and_deleted(files: Files) -> None:
    await files.mkdir("a/b")
    await files.write("a/one.txt", b"1")
    await files.write("a/b/two.txt", b"2")
    flat = await files.list("a")
    deep = await files.list("a", max_depth=2, pattern="*.txt")
    page = await files.list("a", max_depth=2, start_index=1, limit=1)
    moved = await files.move("a/one.txt", "three.txt")
    gone = await files.delete("a", recursive=True)

    assert [entry.name for entry in flat.entries] == ["b", "one.txt"]
    assert [entry.name for entry in deep.entries] == ["two.txt", "one.txt"]
    assert (len(page.entries), page.total) == (1, 3)
    assert moved.path == "/workspace/three.txt"
    assert gone == 3


async def test_refusals_come_with_their_reason(files: Files) -> None:
    await files.mkdir("folder")
    await files.write("folder/file", b"x")
    refused = [
        (files.stat("absent"), "not_found"),
        (files.read_bytes("folder", 10), "is_directory"),
        (files.delete("folder"), "not_empty"),
        (files.write("/etc/passwd", b"x"), "read_only"),
        (files.read_bytes("folder/file", 0), "too_large"),
        (files.write("folder/file", b"x", if_etag="other"), "conflict"),
        (files.stat("a\0b"), "invalid_name"),
        (files.stat("\ud800"), "invalid_name"),
        (files.stat("x/" * 5000), "invalid_name"),
    ]
    for operation, reason in refused:
        with pytest.raises(FileError) as caught:
            await operation
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    "ask",
    [
        lambda files: files.list("", limit=0),
        lambda files: files.list("", limit=10**6),
        lambda files: files.list("", start_index=-1),
        lambda files: files.open_read("a", -1),
        lambda files: files.open_read("a", 0, 2**70),
        lambda files: files.write("a", b"", 0o10777),
        lambda files: files.edit("a", "", "x"),
        lambda files: files.edit("a", "same", "same"),
    ],
)
async def test_requests_without_sense_are_refused(files: Files, ask: Any) -> None:
    with pytest.raises(InvalidRequest):
        await ask(files)


async def test_an_edit_replaces_exact_text_and_shows_what_it_did(files: Files) -> None:
    await files.write("poem", b"one\ntwo\nthree\n")
    result = await files.edit("poem", "two", "2\n2½")
    data, stat = await files.read_bytes("poem", 1000)

    assert data.decode() == "one\n2\n2½\nthree\n"
    assert result.replacements == 1
    assert result.stat == stat
    assert "-two\n+2\n+2½\n" in result.diff


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        ("a\r\nb\r\n", "a\nb", "x\ny", "x\r\ny\r\n"),
        ("a\r\nb\r\n", "b", "x\ny", "a\r\nx\r\ny\r\n"),
        ("a\r\nb\r\n", "a\n", "", "b\r\n"),
        ("a\r\nb\r\n", "a\r\nb", "a\nb", "a\nb\r\n"),
        ("a\r\nb\nc", "a\nb", "x\ny", "x\r\ny\nc"),
        ("a\r\nb\nc", "b\nc", "x\ny", "a\r\nx\ny"),
        ("a\nb\n", "a\r\nb", "x\r\ny", "x\ny\n"),
        ("a\nb\n", "b", "x\r\ny", "a\nx\r\ny\n"),
    ],
)
async def test_an_edit_finds_lines_whatever_ends_them_and_keeps_their_ends(
    files: Files, before: str, old: str, new: str, after: str
) -> None:
    await files.write("text", before.encode())
    await files.edit("text", old, new)
    data, _ = await files.read_bytes("text", 100)

    assert data.decode() == after


async def test_an_edit_that_is_not_clear_changes_nothing(files: Files) -> None:
    await files.write("text", b"aa bb aa")
    await files.write("binary", b"\xff\xfe")
    for path, old, reason in [
        ("text", "cc", "no_match"),
        ("text", "aa", "many_matches"),
        ("binary", "x", "not_text"),
        ("absent", "x", "not_found"),
    ]:
        with pytest.raises(FileError) as caught:
            await files.edit(path, old, "new")
        assert caught.value.reason == reason
    untouched, _ = await files.read_bytes("text", 100)
    everywhere = await files.edit("text", "aa", "c", replace_all=True)

    assert untouched == b"aa bb aa"
    assert everywhere.replacements == 2


async def test_an_edit_cannot_blow_a_file_up(files: Files) -> None:
    await files.write("text", b"a" * 1_000_000)
    with pytest.raises(FileError) as caught:
        await files.edit("text", "a", "b" * 1000, replace_all=True)

    assert caught.value.reason == "too_large"


async def test_a_change_between_reading_and_writing_is_a_conflict() -> None:
    async def serve(stream: Stream) -> None:
        if stream.request["op"] == "file.read":
            await stream.send_json({**STAT, "etag": "before"})
            await stream.send(b"old")
            stream.end()
            return
        if stream.request.get("if_etag") == "before":
            raise FileError("conflict", "somebody else was quicker")
        await stream.send_json(STAT)
        stream.end()

    async with answered(serve) as files:
        with pytest.raises(FileError) as caught:
            await files.edit("a", "old", "new")

    assert caught.value.reason == "conflict"


async def test_leaving_a_file_half_read_lets_it_go(files: Files) -> None:
    await files.write("big", b"x" * 5_000_000)
    async with await files.open_read("big") as reading:
        async for _ in reading:
            break

    assert (await files.stat("big")).size == 5_000_000


async def test_real_files_are_read_written_and_edited(tmp_path: Path) -> None:
    async with host_machine(tmp_path) as machine:
        files = await files_of(machine)
        await files.write("a/b.txt", b"tea\ncoffee\n", 0o600)
        result = await files.edit("a/b.txt", "coffee", "water")
        listed = await files.list("", max_depth=2)
        with pytest.raises(FileError) as caught:
            await files.write("a/b.txt", b"", if_etag="another")

    assert (tmp_path / "workspace/a/b.txt").read_text() == "tea\nwater\n"
    assert (tmp_path / "workspace/a/b.txt").stat().st_mode & 0o777 == 0o600
    assert result.diff.endswith(" tea\n-coffee\n+water\n")
    assert [entry.name for entry in listed.entries] == ["a", "b.txt"]
    assert caught.value.reason == "conflict"


@pytest.mark.parametrize(
    "change",
    [
        {"type": "door"},
        {"size": -1},
        {"size": "1"},
        {"mode": 2**40},
        {"mtime": float("1e400")},
        {"path": "x" * 20_000},
        {"etag": None},
    ],
)
async def test_a_stat_without_sense_is_a_broken_protocol(change: dict[str, Any]) -> None:
    async def serve(stream: Stream) -> None:
        text = json.dumps({**STAT, **change}).replace("Infinity", "1e400")
        await stream.send(text.encode(), wire.JSON)
        stream.end()

    async with answered(serve) as files:
        with pytest.raises(ProtocolError):
            await files.stat("a")


async def test_a_supervisor_that_falls_silent_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandbox.files.files.PATIENCE_S", 0.1)

    async def serve(stream: Stream) -> None:
        if stream.request["op"] == "file.read":
            await stream.send_json(STAT)
        await anyio.sleep_forever()

    async with answered(serve) as files:
        with pytest.raises(InfrastructureError):
            await files.read_bytes("a", 10)
        with pytest.raises(InfrastructureError):
            await files.write("a", b"x" * 10_000_000)


async def test_a_file_that_never_ends_is_not_read_to_the_end() -> None:
    async def serve(stream: Stream) -> None:
        await stream.send_json(STAT)
        while True:
            await stream.send(b"x" * 65_000)

    async with answered(serve) as files:
        with pytest.raises(FileError) as caught:
            await files.read_bytes("a", 1_000_000)

    assert caught.value.reason == "too_large"


async def test_without_a_link_it_is_said_so() -> None:
    with pytest.raises(LinkLost):
        await Files(Limits()).stat("a")
