from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox.errors import FileError, InvalidRequest
from sandbox.link import wire
from sandbox.link.link import Link
from sandbox.supervisor import tree

from ...support.supervisorprocess import SupervisorProcess, ending

pytestmark = pytest.mark.anyio


@pytest.fixture
def here(machine: SupervisorProcess, request: pytest.FixtureRequest) -> Path:
    """A folder of this test's own in the workspace."""
    folder = machine.workspace / f"t{abs(hash(request.node.name))}"
    folder.mkdir()
    return folder


async def write(link: Link, path: Path | str, data: bytes, **fields: Any) -> dict[str, Any]:
    stream = link.open("file.write", path=str(path), **fields)
    for start in range(0, len(data), 60_000):
        await stream.send(data[start : start + 60_000])
    stream.end()
    return await stream.receive_json()


async def read(link: Link, path: Path | str, **fields: Any) -> tuple[dict[str, Any], bytes]:
    stream = link.open("file.read", path=str(path), **fields)
    stream.end()
    info = await stream.receive_json()
    return info, (await ending(stream))[0]


async def refused(link: Link, op: str, **fields: Any) -> str:
    """The reason with which an operation is refused, within a second."""
    with anyio.fail_after(5), pytest.raises(FileError) as caught:
        await link.call(op, **fields)
    return caught.value.reason


async def test_what_is_written_is_read_back(link: Link, here: Path) -> None:
    data = os.urandom(3_000_000)
    with anyio.fail_after(10):
        info = await write(link, here / "file", data)
        assert (here / "file").read_bytes() == data
        found, content = await read(link, here / "file")
        assert content == data
        assert found == info
        assert (info["type"], info["size"], info["name"]) == ("file", len(data), "file")
        assert info["mode"] == 0o644
        assert (await read(link, here / "file", offset=5, length=10))[1] == data[5:15]
        assert (await read(link, here / "file", offset=len(data) + 5))[1] == b""
        assert [path.name for path in here.iterdir()] == ["file"]


async def test_paths_are_relative_to_the_workspace_or_absolute(
    link: Link, machine: SupervisorProcess, here: Path
) -> None:
    with anyio.fail_after(10):
        info = await write(link, f"{here.name}/relative", b"x")
        assert info["path"] == str(here / "relative")
        same = await link.call("file.stat", path=f"{here.name}//.//../{here.name}/relative")
        assert same["etag"] == info["etag"]


async def test_a_replaced_file_keeps_its_mode_and_changes_its_etag(link: Link, here: Path) -> None:
    (here / "script").write_text("old")
    (here / "script").chmod(0o755)
    with anyio.fail_after(10):
        before = await link.call("file.stat", path=str(here / "script"))
        after = await write(link, here / "script", b"new")
        assert (after["mode"], (here / "script").read_text()) == (0o755, "new")
        assert before["etag"] != after["etag"]
        assert (await write(link, here / "script", b"", mode=0o600))["mode"] == 0o600


async def test_a_write_through_a_link_changes_what_it_points_at(link: Link, here: Path) -> None:
    (here / "real").write_text("old")
    (here / "link").symlink_to("real")
    with anyio.fail_after(10):
        await write(link, here / "link", b"new")
        assert (here / "link").is_symlink()
        assert (here / "real").read_text() == "new"
        info = await link.call("file.stat", path=str(here / "link"))
        assert (info["type"], info["target"]) == ("symlink", "real")


async def test_a_write_that_is_given_up_leaves_nothing(link: Link, here: Path) -> None:
    (here / "file").write_text("old")
    with anyio.fail_after(10):
        for name in ("file", "new"):
            stream = link.open("file.write", path=str(here / name))
            await stream.send(b"half")
            while len(list(here.iterdir())) < 2:
                await asyncio.sleep(0.01)
            stream.reset()
            while len(list(here.iterdir())) > 1:
                await asyncio.sleep(0.01)
    assert (here / "file").read_text() == "old"


async def test_a_write_whose_link_is_lost_leaves_nothing(
    machine: SupervisorProcess, here: Path
) -> None:
    with anyio.fail_after(10):
        async with machine.link() as link:
            stream = link.open("file.write", path=str(here / "new"))
            await stream.send(b"half")
            while not list(here.iterdir()):
                await asyncio.sleep(0.01)
        while list(here.iterdir()):
            await asyncio.sleep(0.01)


async def test_appending_adds_and_a_failure_takes_it_back(link: Link, here: Path) -> None:
    with anyio.fail_after(10):
        await write(link, here / "log", b"one\n", append=True)
        await write(link, here / "log", b"two\n", append=True)
        stream = link.open("file.write", path=str(here / "log"), append=True)
        await stream.send(b"three\n")
        while (here / "log").stat().st_size != 14:
            await asyncio.sleep(0.01)
        stream.reset()
        while (here / "log").stat().st_size != 8:
            await asyncio.sleep(0.01)


async def test_an_etag_keeps_from_overwriting_what_changed(link: Link, here: Path) -> None:
    with anyio.fail_after(10):
        first = await write(link, here / "file", b"one", if_etag="")
        second = await write(link, here / "file", b"two", if_etag=first["etag"])
        for wrong in (first["etag"], ""):
            with pytest.raises(FileError) as caught:
                await write(link, here / "file", b"three", if_etag=wrong)
            assert caught.value.reason == "conflict"
        assert (here / "file").read_bytes() == b"two"
        assert (await link.call("file.stat", path=str(here / "file")))["etag"] == second["etag"]


async def test_parents_are_made_when_asked_for(link: Link, here: Path) -> None:
    with anyio.fail_after(10):
        with pytest.raises(FileError) as caught:
            await write(link, here / "a/b/c", b"x")
        assert caught.value.reason == "not_found"
        await write(link, here / "a/b/c", b"x", create_parents=True)
    assert (here / "a/b/c").read_bytes() == b"x"


async def test_what_is_no_file_is_refused_and_never_waited_for(link: Link, here: Path) -> None:
    os.mkfifo(here / "fifo")
    (here / "folder").mkdir()
    (here / "dangling").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here / "socket"))
        for name, reason in (
            ("fifo", "not_a_file"),
            ("socket", "not_a_file"),
            ("dangling", "not_a_file"),
            ("/dev/tty", "not_a_file"),
            ("folder", "is_directory"),
        ):
            path = str(here / name)
            assert await refused(link, "file.read", path=path) == reason
            assert await refused(link, "file.write", path=path) == reason
            assert await refused(link, "file.write", path=path, append=True) == reason
    types = {e["name"]: e["type"] for e in (await listing(link, here))["entries"]}
    assert types == {
        **{"fifo": "fifo", "folder": "directory", "dangling": "symlink", "socket": "socket"}
    }


async def listing(link: Link, path: Path, **fields: Any) -> dict[str, Any]:
    asked = {"max_depth": 1, "pattern": "", "start_index": 0, "limit": 1000, **fields}
    with anyio.fail_after(20):
        return await link.call("file.list", path=str(path), **asked)


def names(answer: dict[str, Any], here: Path) -> list[str]:
    return [os.path.relpath(entry["path"], here) for entry in answer["entries"]]


async def test_a_listing_has_depth_pattern_and_pages(link: Link, here: Path) -> None:
    for path in ("a.py", "b.txt", "d/c.py", "d/e/f.py", "d/e/g.txt"):
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).touch()
    assert names(await listing(link, here), here) == ["a.py", "b.txt", "d"]
    deep = await listing(link, here, max_depth=9)
    assert names(deep, here) == [*("a.py", "b.txt", "d", "d/c.py", "d/e", "d/e/f.py", "d/e/g.txt")]
    assert (deep["total"], deep["truncated"]) == (7, False)
    page = await listing(link, here, max_depth=9, start_index=2, limit=2)
    assert (names(page, here), page["total"]) == (["d", "d/c.py"], 7)
    for pattern, wanted in (
        ("*.py", ["a.py", "d/c.py", "d/e/f.py"]),
        ("d/*.py", ["d/c.py"]),
        ("**/*.py", ["a.py", "d/c.py", "d/e/f.py"]),
        ("d/**/*.txt", ["d/e/g.txt"]),
        ("d/**", ["d", "d/c.py", "d/e", "d/e/f.py", "d/e/g.txt"]),
        ("[ab].*", ["a.py", "b.txt"]),
        ("nothing", []),
    ):
        assert names(await listing(link, here, max_depth=9, pattern=pattern), here) == wanted


async def test_a_listing_follows_no_links(link: Link, here: Path) -> None:
    (here / "loop").symlink_to(here)
    (here / "away").symlink_to("/")
    assert names(await listing(link, here, max_depth=1000), here) == ["away", "loop"]


async def test_a_listing_stops_after_so_many_entries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tree, "MAX_SCANNED", 100)
    for folder in range(20):
        (tmp_path / f"f{folder}").mkdir()
        for number in range(10):
            (tmp_path / f"f{folder}" / str(number)).touch()
    found, truncated = await tree.scan(str(tmp_path), 2, "")
    assert (len(found), truncated) == (100, True)
    found, truncated = await tree.scan(str(tmp_path), 1, "")
    assert (len(found), truncated) == (20, False)


async def test_a_wide_tree_is_deleted_and_counted(link: Link, here: Path) -> None:
    for folder in range(50):
        (here / "wide" / f"f{folder}").mkdir(parents=True)
        for number in range(20):
            (here / "wide" / f"f{folder}" / str(number)).touch()
    with anyio.fail_after(20):
        answer = await link.call("file.delete", path=str(here / "wide"), recursive=True)
    assert answer == {"deleted": 1 + 50 * 21}


async def test_a_pattern_made_to_be_slow_is_not(link: Link, here: Path) -> None:
    (here / ("a" * 200)).touch()
    assert names(await listing(link, here, pattern="*a" * 100 + "b"), here) == []
    assert names(await listing(link, here, pattern="**/" * 500 + "b"), here) == []


async def test_odd_names_are_told_as_text(link: Link, here: Path) -> None:
    os.mkdir(os.fsencode(here) + b"/odd\xff\xfe")
    (here / "new\nline").touch()
    (here / "-rf").touch()
    entries = (await listing(link, here))["entries"]
    assert [(entry["name"], entry.get("odd", False)) for entry in entries] == [
        *(("-rf", False), ("new\nline", False), ("odd\\xff\\xfe", True))
    ]


async def test_a_tree_of_any_depth_is_deleted(link: Link, here: Path) -> None:
    os.mkdir(here / "deep")
    fd = os.open(here / "deep", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("x" * 20, dir_fd=fd)
        below = os.open("x" * 20, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    with anyio.fail_after(20):
        answer = await link.call("file.delete", path=str(here / "deep"), recursive=True)
    assert answer == {"deleted": 1502}
    assert list(here.iterdir()) == []


async def test_deleting_does_not_follow_links_nor_empty_what_is_not_asked_for(
    link: Link, here: Path
) -> None:
    (here / "kept").mkdir()
    (here / "kept/file").touch()
    (here / "tree").mkdir()
    (here / "tree/link").symlink_to(here / "kept")
    path = str(here / "tree")
    assert await refused(link, "file.delete", path=path) == "not_empty"
    with anyio.fail_after(5):
        assert await link.call("file.delete", path=path, recursive=True) == {"deleted": 2}
    assert (here / "kept/file").exists()


async def test_the_workspace_and_filesystems_stay(
    link: Link, machine: SupervisorProcess, here: Path
) -> None:
    inside = str(here / "..")
    for path in (str(machine.workspace), ".", "./", "//", "/", "/proc", inside, f"{here}/."):
        for op in ("file.delete", "file.move"):
            fields = {"path": path, "recursive": True} if op == "file.delete" else {}
            fields |= {"source": path, "target": f"{machine.workspace}-moved"}
            assert await refused(link, op, **fields) == "permission_denied", path
    assert here.exists()


async def test_moving_keeps_what_is_there_unless_told(link: Link, here: Path) -> None:
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    with anyio.fail_after(10):
        fields = {"source": str(here / "a"), "target": str(here / "b")}
        assert await refused(link, "file.move", **fields) == "exists"
        info = await link.call("file.move", **fields, overwrite=True)
        assert (info["name"], (here / "b").read_text()) == ("b", "a")
        assert not (here / "a").exists()
        gone = {"source": str(here / "a"), "target": str(here / "c")}
        assert await refused(link, "file.move", **gone) == "not_found"


async def test_a_tree_moves_to_another_filesystem(link: Link, here: Path) -> None:
    (here / "tree/below").mkdir(parents=True)
    (here / "tree/below/file").write_text("x" * 100_000)
    os.mkfifo(here / "tree/fifo")
    target = Path("/dev/shm") / here.name
    assert target.parent.stat().st_dev != here.stat().st_dev
    try:
        with anyio.fail_after(10):
            await link.call("file.move", source=str(here / "tree"), target=str(target))
            assert (target / "below/file").read_text() == "x" * 100_000
            assert (target / "fifo").is_fifo()
            assert not (here / "tree").exists()
    finally:
        await link.call("file.delete", path=str(target), recursive=True)


async def test_directories_are_made(link: Link, here: Path) -> None:
    with anyio.fail_after(10):
        assert (await link.call("file.mkdir", path=str(here / "d")))["type"] == "directory"
        assert await refused(link, "file.mkdir", path=str(here / "d")) == "exists"
        assert await refused(link, "file.mkdir", path=str(here / "x/y")) == "not_found"
        await link.call("file.mkdir", path=str(here / "x/y"), parents=True)
        await link.call("file.mkdir", path=str(here / "x/y"), parents=True)
        (here / "file").touch()
        assert await refused(link, "file.mkdir", path=str(here / "file/z")) == "not_a_directory"


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 256, "y/" * 2100, 5, None, ["a"]], ids=repr)
async def test_names_that_cannot_be_are_refused(link: Link, path: object) -> None:
    for op in ("file.stat", "file.read", "file.write", "file.delete", "file.mkdir"):
        assert await refused(link, op, path=path) == "invalid_name"


async def test_wrong_requests_are_refused(link: Link, here: Path) -> None:
    (here / "file").touch()
    path = str(here / "file")
    for op, fields in (
        ("file.read", {"offset": -1}),
        ("file.read", {"length": "5"}),
        ("file.write", {"mode": 0o10000}),
        ("file.write", {"append": 1}),
        ("file.list", {"limit": 1001}),
        ("file.list", {"max_depth": 0}),
        ("file.delete", {"recursive": "yes"}),
    ):
        if op == "file.delete":
            fields["path"] = str(here)
        with anyio.fail_after(5), pytest.raises(InvalidRequest):
            await link.call(op, **{"path": path, **fields})
    stream = link.open("file.write", path=path)
    await stream.send_json({"not": "bytes"})
    with anyio.fail_after(5), pytest.raises(InvalidRequest):
        await stream.receive()
    assert [p.name for p in here.iterdir()] == ["file"]


async def test_a_read_waits_for_its_reader_and_lets_others_by(link: Link, here: Path) -> None:
    (here / "big").write_bytes(bytes(20_000_000))
    with anyio.fail_after(10):
        stream = link.open("file.read", path=str(here / "big"))
        stream.end()
        await stream.receive()
        for _ in range(10):
            await link.call("file.stat", path=str(here / "big"))
        sizes = [len(message.data) async for message in stream if message.tag == wire.BYTES]
    assert sum(sizes) == 20_000_000
