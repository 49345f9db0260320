from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from sandbox.container import sockets
from sandbox.container.identity import MAX_UID, MIN_UID
from sandbox.container.sockets import Search, search

NOBODY = range(0)
SANDBOXES = range(MIN_UID, MAX_UID + 1)


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def looked(folder: Path, strangers: range = NOBODY) -> Search:
    return search(str(folder), strangers=strangers)


def test_files_folders_links_and_devices_are_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("x")
    os.mknod(tmp_path / "a" / "null", 0o020666, os.makedev(1, 3))
    assert looked(tmp_path) == Search()


@pytest.mark.parametrize("name", ["s", "a/b/s", "a/.hidden"])
def test_a_socket_and_a_fifo_are_found_wherever_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    os.mkfifo(tmp_path / name)
    assert looked(tmp_path).found == f"the FIFO {name!r}"
    (tmp_path / name).unlink()
    bind(tmp_path / name)
    before = descriptors()
    assert looked(tmp_path).found == f"the socket {name!r}"
    assert descriptors() == before


def test_a_name_in_the_message_cannot_write_into_a_terminal(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a\n\x1b[2J\udcff")
    assert looked(tmp_path).found.isprintable()


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "folder").mkdir()
    bind(tmp_path / "other" / "s")
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "folder" / "to-socket").symlink_to(tmp_path / "other" / "s")
    assert looked(tmp_path / "folder") == Search()


def test_what_sandboxes_made_is_passed_over_where_they_may_write(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.mkfifo(tmp_path / "theirs" / "inner")
    os.mkfifo(tmp_path / "outer")
    os.chown(tmp_path / "theirs", 250_000, 250_000)
    os.chown(tmp_path / "outer", 250_000, 250_000)
    assert looked(tmp_path, SANDBOXES) == Search()
    assert looked(tmp_path).found
    bind(tmp_path / "ours")
    assert looked(tmp_path, SANDBOXES).found == "the socket 'ours'"


def test_another_folder_than_was_looked_at_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    here = os.stat(tmp_path / "folder")
    identity = (here.st_dev, here.st_ino)
    folder = str(tmp_path / "folder")
    assert search(folder, identity=identity, strangers=NOBODY) == Search()
    (tmp_path / "folder").rename(tmp_path / "moved")
    (tmp_path / "folder").mkdir()
    assert search(folder, identity=identity, strangers=NOBODY).unsearched


def test_a_folder_past_a_bound_is_not_taken_for_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(20):
        (tmp_path / str(n)).write_text("")
    monkeypatch.setattr(sockets, "MAX_ENTRIES", 19)
    assert "more than 19" in looked(tmp_path).unsearched
    monkeypatch.setattr(sockets, "MAX_ENTRIES", 1000)
    monkeypatch.setattr(sockets, "PAUSE_EVERY", 10)
    monkeypatch.setattr(sockets, "MAX_S", 0.0)
    assert "longer than" in looked(tmp_path).unsearched
    monkeypatch.setattr(sockets, "MAX_S", 60.0)
    deep = tmp_path
    for _ in range(sockets.MAX_DEPTH):
        deep = deep / "d"
    deep.mkdir(parents=True)
    before = descriptors()
    assert "within each other" in looked(tmp_path).unsearched
    assert descriptors() == before


def test_a_folder_that_only_sessions_may_enter_is_not_taken_for_searched(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    bind(inner / "s")
    tmp_path.chmod(0o755)

    def unprivileged(mode: int) -> Search:
        inner.chmod(mode)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setegid(65534)
            os.seteuid(65534)
            try:
                os.fchdir(top)
                came = search("/proc/self/cwd/.", strangers=NOBODY)
                os.write(writer, f"{came.found};{came.unsearched}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(pid, 0)
        with open(reader) as stream:
            found, _, unsearched = stream.read().partition(";")
        return Search(found, unsearched)

    top = os.open(tmp_path, os.O_RDONLY)
    assert "cannot be looked into" in unprivileged(0o711).unsearched
    assert unprivileged(0o700) == Search()
    os.close(top)


def test_a_search_leaves_the_interpreter_to_others(tmp_path: Path) -> None:
    for n in range(2 * sockets.PAUSE_EVERY):
        (tmp_path / str(n)).touch()
    busy = time.thread_time()
    begun = time.monotonic()
    looked(tmp_path)
    busy = time.thread_time() - busy
    assert time.monotonic() - begun - busy >= sockets.PAUSE_S
