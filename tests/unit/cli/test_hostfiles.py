"""Files of this machine that go into a session, and names that nobody vouches for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.cli.hostfiles import HostFolder, Outgoing, name_inside, pieces_of, safe_parts
from sandbox.errors import InvalidRequest

pytestmark = pytest.mark.anyio

MOST = 1000


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


def outgoing(*paths: Path) -> Outgoing:
    found = Outgoing()
    for path in paths:
        found.add(path, path.name)
    return found


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("data.csv", "data.csv"),
        ("./src/", "src"),
        ("a/../b", "b"),
        (".", ""),
        ("/etc/hosts", "hosts"),
        ("../elsewhere/x.csv", "x.csv"),
    ],
)
def test_a_file_keeps_its_relative_name_and_one_from_elsewhere_its_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_inside(Path(given)) == name
    assert name_inside(tmp_path / "below" / "f") == "below/f"


async def test_a_folder_goes_with_all_that_is_in_it_but_for_links_and_special_files(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "src"
    (folder / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "deep" / "run.sh").write_text("x")
    (folder / "deep" / "run.sh").chmod(0o700)
    (folder / "out").symlink_to("/etc/passwd")
    (folder / "around").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "fifo")
    found = outgoing(folder)
    assert [(each.name, each.is_program) for each in found.files] == [("src/deep/run.sh", True)]
    assert found.folders == ["src/empty"]
    assert sorted(line.rpartition("/")[2] for line in found.left_out) == [
        "around: a symbolic link",
        "fifo: no file",
        "out: a symbolic link",
    ]
    assert [piece async for piece in pieces_of(found.files[0])] == [b"x"]


def test_a_link_that_a_person_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("content")
    (tmp_path / "link").symlink_to("real")
    (file,) = outgoing(tmp_path / "link").files
    assert (file.name, file.size) == ("link", 7)


def test_a_special_file_that_a_person_names_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidRequest):
        outgoing(tmp_path / "fifo")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text("")
    with pytest.raises(InvalidRequest, match="Two files"):
        outgoing(tmp_path / "a" / "x", tmp_path / "b" / "x")


async def test_a_file_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    found = outgoing(tmp_path / "f")
    (tmp_path / "f").unlink()
    (tmp_path / "f").symlink_to("/etc/passwd")
    with pytest.raises(InvalidRequest):
        [piece async for piece in pieces_of(found.files[0])]


@pytest.mark.parametrize(
    "name",
    [
        *("", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "./x", "a/"),
        *("a\nb", "a\x1b]0;b", "a\\b", "a\udc80", "x" * 5000),
    ],
)
def test_a_name_that_leads_elsewhere_or_cannot_be_shown_is_no_name(name: str) -> None:
    with pytest.raises(InvalidRequest):
        safe_parts(name)


async def test_files_are_written_with_the_folders_above_them(tmp_path: Path) -> None:
    with HostFolder(tmp_path / "new", force=False) as folder:
        assert await folder.write("a/b/c.txt", pieces(b"x", b"y"), most=MOST) == 2
    assert (tmp_path / "new/a/b/c.txt").read_text() == "xy"


async def test_what_is_there_is_replaced_with_force_only(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with HostFolder(tmp_path, force=False) as folder:
        assert folder.is_taken("f")
        with pytest.raises(InvalidRequest, match="already"):
            await folder.write("f", pieces(b"new"), most=MOST)
        assert (tmp_path / "f").read_text() == "old"
    with HostFolder(tmp_path, force=True) as folder:
        assert not folder.is_taken("f")
        await folder.write("f", pieces(b"new"), most=MOST)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "new"


@pytest.mark.parametrize("force", [False, True])
async def test_no_link_of_the_target_folder_is_followed(tmp_path: Path, force: bool) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (outside / "f").write_text("mine")
    (target / "folder").symlink_to(outside, target_is_directory=True)
    (target / "file").symlink_to(outside / "f")
    with HostFolder(target, force=force) as folder:
        with pytest.raises(InvalidRequest):
            await folder.write("folder/g", pieces(b"x"), most=MOST)
        if force:
            await folder.write("file", pieces(b"x"), most=MOST)
        else:
            assert folder.is_taken("file")
            with pytest.raises(InvalidRequest):
                await folder.write("file", pieces(b"x"), most=MOST)
    assert (outside / "f").read_text() == "mine"
    assert [path.name for path in outside.iterdir()] == ["f"]


async def test_a_file_that_breaks_off_or_is_too_long_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise InvalidRequest("It broke off.")

    with HostFolder(tmp_path, force=False) as folder:
        with pytest.raises(InvalidRequest, match="broke off"):
            await folder.write("a", broken(), most=MOST)
        with pytest.raises(InvalidRequest, match="longer"):
            await folder.write("b", pieces(b"x" * 600, b"x" * 600), most=MOST)
    assert list(tmp_path.iterdir()) == []
