"""Globs of results, hostile listings, and what fits."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.cli.hostfiles import HostFile, HostFolder, Outgoing
from sandbox.cli.sessionaccess import FolderListing
from sandbox.cli.transfers import check_room, copy_in, copy_out, matching, shown
from sandbox.errors import FileError, InvalidRequest, QuotaExceeded
from sandbox.files.models import FileStat

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


def stat(path: str, kind: Any = "file", **more: Any) -> FileStat:
    name = path.rpartition("/")[2]
    return FileStat(
        path=path, name=name, type=kind, size=1, mode=0o644, mtime=0.0, etag="e", **more
    )


class Session:
    """A session whose files are a list, and which says what it likes about them."""

    session_id = "s-1"

    def __init__(self, *entries: FileStat, is_whole: bool = True) -> None:
        self.entries = entries
        self.is_whole = is_whole
        self.asked: list[tuple[str, int, str]] = []
        self.written: dict[str, bytes] = {}

    async def list(self, path: str, max_depth: int = 1, pattern: str = "") -> FolderListing:
        self.asked.append((path, max_depth, pattern))
        below = f"/workspace/{path}/" if path else "/workspace/"
        found = [each for each in self.entries if each.path.startswith(below)]
        if not found and path:
            raise FileError("not_found", "There is none.")
        wanted = pattern.rpartition("/")[2] or "*"
        found = [each for each in found if fnmatch.fnmatch(each.name, wanted)]
        return FolderListing(tuple(found), self.is_whole, MIB, 10)

    @asynccontextmanager
    async def read(self, path: str) -> AsyncGenerator[tuple[int, AsyncIterator[bytes]]]:
        async def pieces() -> AsyncIterator[bytes]:
            yield path.encode()

        yield 1, pieces()

    async def write(self, path: str, pieces: AsyncIterator[bytes], mode: int | None) -> None:
        self.written[path] = b"".join([piece async for piece in pieces])

    async def mkdir(self, path: str) -> None:
        self.written[path] = b"/"

    def channel(self, kind: str) -> Any:
        raise AssertionError(kind)


async def names(session: Session, pattern: str) -> list[str]:
    return [each.name for each in (await matching(session, pattern))[0]]


async def test_a_glob_begins_to_look_where_it_begins_to_be_one() -> None:
    session = Session(stat("/workspace/out/a/x.png"), stat("/workspace/out/a/y.csv"))
    assert await names(session, "out/*/x.png") == ["out/a/x.png"]
    assert await names(session, "/workspace/out/**/*.png") == ["out/a/x.png"]
    assert session.asked[:2] == [("out", 2, "*/x.png"), ("out", 32, "**/*.png")]


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("*.png", ["a.png"]),
        ("out/*", ["out/x.csv", "out/y.png"]),
        ("out/*.png", ["out/y.png"]),
        ("**/*.png", ["a.png", "out/deep/z.png", "out/y.png"]),
        ("out/**", ["out/deep/z.png", "out/x.csv", "out/y.png"]),
        ("**/deep/**/z.*", ["out/deep/z.png"]),
        ("[ab].png", ["a.png"]),
    ],
)
async def test_a_session_that_answers_with_other_files_is_not_believed(
    pattern: str, meant: list[str]
) -> None:
    class Liar(Session):
        async def list(self, path: str, max_depth: int = 1, pattern: str = "") -> FolderListing:
            below = f"/workspace/{path}/" if path else "/workspace/"
            found = [each for each in self.entries if each.path.startswith(below)]
            return FolderListing(tuple(found), True, MIB, 10)

    there = ("Makefile", "src/main.py", "a.png", "out/x.csv", "out/y.png", "out/deep/z.png")
    assert await names(Liar(*(stat(f"/workspace/{each}") for each in there)), pattern) == meant


async def test_a_folder_comes_with_what_is_in_it() -> None:
    session = Session(
        stat("/workspace/out", "directory"),
        stat("/workspace/out/x"),
        stat("/workspace/out/.hidden"),
    )
    assert await names(session, "out/") == ["out", "out/x"]


@pytest.mark.parametrize("pattern", ["/etc/*", "../x", "a/../../x", "/workspace/../etc/x", "//etc"])
async def test_a_glob_outside_the_workspace_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequest):
        await matching(Session(), pattern)


async def test_hidden_files_come_only_when_they_are_named() -> None:
    session = Session(stat("/workspace/.bashrc"), stat("/workspace/x"))
    assert await names(session, "*") == ["x"]
    assert await names(session, ".") == ["x"]
    assert await names(session, ".b*") == [".bashrc"]


async def test_what_is_no_file_or_has_no_name_is_left_out_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = Session(
        stat("/workspace/link", "symlink"),
        stat("/workspace/odd\\xff", odd=True),
        stat("/workspace/x"),
    )
    assert await names(session, "*") == ["x"]
    assert "link: a symlink" in capsys.readouterr().err


async def test_a_glob_that_matches_nothing_finds_nothing() -> None:
    assert await names(Session(stat("/workspace/x")), "absent/*.png") == []


async def test_too_many_files_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="too many"):
        await matching(Session(stat("/workspace/x"), is_whole=False), "*")


@pytest.mark.parametrize(
    "path",
    [
        "/workspace/out/../../../evil",
        "/etc/evil",
        "/workspace/out//evil",
        "/workspace/out/e\x1b]0;x",
    ],
)
async def test_whatever_a_listing_says_nothing_is_written_outside_the_target(
    tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Liar(Session):
        async def list(self, path: str, max_depth: int = 1, pattern: str = "") -> FolderListing:
            return FolderListing(self.entries, True, MIB, 10)

    found, most = await matching(Liar(stat(path)), "out/*")
    with HostFolder(tmp_path / "target", force=True) as folder:
        refused = await copy_out(Liar(), found, folder, most=most)
    assert len(refused) == len(found)
    assert list((tmp_path / "target").iterdir()) == []
    assert [each.name for each in tmp_path.iterdir()] == ["target"]
    assert "\x1b" not in "".join(refused)
    assert "\x1b" not in capsys.readouterr().err


async def test_what_was_written_is_said_with_its_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(stat("/workspace/out/x.png"))
    found, most = await matching(session, "out/*.png")
    with HostFolder(tmp_path, force=False) as folder:
        assert await copy_out(session, found, folder, most=most) == []
        again = await copy_out(session, found, folder, most=most)
    assert (tmp_path / "out/x.png").read_text() == "out/x.png"
    assert "[wrote out/x.png, 9 bytes]" in capsys.readouterr().err
    assert "--force" in again[0]


async def test_no_more_comes_out_than_the_session_may_hold(tmp_path: Path) -> None:
    session = Session(stat("/workspace/a"), stat("/workspace/b"))
    found, _ = await matching(session, "*")
    with HostFolder(tmp_path, force=False) as folder:
        refused = await copy_out(session, found, folder, most=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert "longer" in refused[0]


async def test_files_go_in_with_their_names(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x").write_text("content")
    (tmp_path / "src" / "empty").mkdir()
    outgoing, session = Outgoing(), Session()
    outgoing.add(tmp_path / "src", "src")
    await copy_in(session, outgoing, "there")
    assert session.written == {"there/src/x": b"content", "there/src/empty": b"/"}


@pytest.mark.parametrize(("count", "size"), [(1, 2 * MIB), (11, 1)])
def test_what_cannot_fit_is_refused_before_it_is_copied(count: int, size: int) -> None:
    files = [HostFile(Path("x"), f"{n}", size, False) for n in range(count)]
    with pytest.raises(QuotaExceeded, match="Nothing was copied"):
        check_room(Outgoing(files), FolderListing((), True, MIB, 10))


def test_names_are_shown_without_what_a_terminal_would_obey() -> None:
    assert shown("a\x1b]0;b\x07\n") == "a\\x1b]0;b\\x07\\n"
