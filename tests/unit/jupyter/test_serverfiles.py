"""A session's files over a ContentsManager: what that hides and forbids stays so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from sandbox.errors import FileError, InvalidRequest
from sandbox.jupyter import serverfiles

from .conftest import Managed

pytestmark = pytest.mark.anyio


async def refused(reason: str, work: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(FileError) as caught:
        await work()
    assert caught.value.reason == reason


async def test_a_file_is_written_with_its_folders_and_read_back(managed: Managed) -> None:
    files, data = managed.session.files, bytes(range(256)) * 3000
    stat = await files.write("a/b/c.bin", data)
    assert (stat.path, stat.type, stat.size) == ("/a/b/c.bin", "file", len(data))
    assert (managed.root / "a/b/c.bin").read_bytes() == data
    assert (await files.read_bytes("/a/b/c.bin", len(data)))[0] == data
    assert (await files.read_bytes("a/b/c.bin", 300_000, offset=500_000))[0] == data[500_000:]


async def test_folders_are_listed_level_by_level_and_by_pattern(managed: Managed) -> None:
    files = managed.session.files
    for path in ("x.py", "sub/y.py", "sub/z.txt", "sub/deep/w.py"):
        await files.write(path, b"1")
    one = await files.list()
    assert [each.path for each in one.entries] == ["/sub", "/x.py"]
    python = await files.list(max_depth=3, pattern="*.py")
    assert [each.path for each in python.entries] == ["/sub/deep/w.py", "/sub/y.py", "/x.py"]
    page = await files.list(max_depth=3, start_index=1, limit=2)
    assert (len(page.entries), page.total) == (2, 6)
    inside = await files.list("sub", pattern="deep/*", max_depth=2)
    assert [each.path for each in inside.entries] == ["/sub/deep/w.py"]


async def test_an_edit_answers_its_diff_and_refuses_a_file_that_changed(managed: Managed) -> None:
    files = managed.session.files
    stat = await files.write("a.txt", b"one two")
    edit = await files.edit("a.txt", "two", "three")
    assert (edit.replacements, managed.root.joinpath("a.txt").read_text()) == (1, "one three")
    await refused("conflict", lambda: files.write("a.txt", b"x", if_etag=stat.etag))
    assert managed.root.joinpath("a.txt").read_text() == "one three"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/../etc/passwd"])
async def test_no_path_leaves_the_root(managed: Managed, path: str) -> None:
    (managed.root.parent / "x").write_text("outside")
    files = managed.session.files
    await refused("outside", lambda: files.read_bytes(path, 100))
    await refused("outside", lambda: files.write(path, b""))
    await refused("outside", lambda: files.move("a", path))


async def test_a_link_that_leads_out_of_the_root_is_for_jupyter_to_judge(managed: Managed) -> None:
    """The ContentsManager follows links: so do we, where it does and nowhere else."""
    (managed.root.parent / "outside.txt").write_text("outside")
    (managed.root / "link").symlink_to(managed.root.parent / "outside.txt")
    model = await managed.contents.get("link", content=False)
    assert (await managed.session.files.stat("link")).size == model["size"]


async def test_what_the_contents_manager_hides_is_not_there(managed: Managed) -> None:
    files = managed.session.files
    (managed.root / ".secret").write_text("hidden")
    (managed.root / ".folder").mkdir()
    assert (await files.list(max_depth=3)).total == 0
    await refused("not_found", lambda: files.read_bytes(".secret", 100))
    await refused("not_found", lambda: files.stat(".folder"))
    await refused("not_found", lambda: files.delete(".secret"))
    await refused("not_found", lambda: files.move(".secret", "shown"))
    (managed.root / "shown").write_text("1")
    await refused("not_found", lambda: files.move("shown", ".now"))
    await refused("permission_denied", lambda: files.write(".new", b"1"))
    await refused("permission_denied", lambda: files.mkdir(".made"))
    assert (managed.root / ".secret").read_text() == "hidden"


async def test_moving_and_deleting_say_what_stands_in_the_way(managed: Managed) -> None:
    files = managed.session.files
    await files.write("a.txt", b"a")
    await files.write("b.txt", b"b")
    await refused("exists", lambda: files.move("a.txt", "b.txt"))
    assert (await files.move("a.txt", "b.txt", overwrite=True)).path == "/b.txt"
    assert managed.root.joinpath("b.txt").read_text() == "a"
    await files.write("full/c.txt", b"c")
    await refused("not_empty", lambda: files.delete("full"))
    await refused("not_empty", lambda: files.delete("full", recursive=True))
    managed.contents.always_delete_dir = True
    assert await files.delete("full", recursive=True) == 2
    await refused("not_found", lambda: files.delete("full"))
    await refused("permission_denied", lambda: files.delete("/", recursive=True))
    await refused("is_directory", lambda: files.read_bytes("/", 1))
    assert (await files.mkdir("new/deep")).type == "directory"
    await refused("is_directory", lambda: files.write("new", b""))


async def test_a_move_that_fails_leaves_what_it_was_to_replace(managed: Managed) -> None:
    files = managed.session.files
    await files.write("folder/kept.txt", b"kept")
    await refused("io_error", lambda: files.move("folder", "folder/kept.txt", overwrite=True))
    assert [each.path for each in (await files.list("folder")).entries] == ["/folder/kept.txt"]
    assert managed.root.joinpath("folder/kept.txt").read_bytes() == b"kept"
    await files.write("other.txt", b"other")
    await files.move("other.txt", "folder/kept.txt", overwrite=True)
    assert [each.path for each in (await files.list("folder")).entries] == ["/folder/kept.txt"]


async def test_permission_bits_are_refused_for_there_are_none(managed: Managed) -> None:
    with pytest.raises(InvalidRequest):
        await managed.session.files.write("a.sh", b"", mode=0o755)
    assert not (managed.root / "a.sh").exists()


async def test_a_file_that_is_too_large_is_neither_read_nor_written(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serverfiles, "MAX_FILE_BYTES", 1000)
    files = managed.session.files
    (managed.root / "large").write_bytes(bytes(1001))
    await refused("too_large", lambda: files.read_bytes("large", 10))
    await refused("too_large", lambda: files.write("larger", bytes(1001)))
    assert not (managed.root / "larger").exists()
