from __future__ import annotations

import errno
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.errors import (
    Conflict,
    FileError,
    InfrastructureError,
    NotFound,
    QuotaExceeded,
    TooMuchWork,
)
from sandbox.supervisor.snapshotkeeper import bounds, contents, mappings, taking
from sandbox.supervisor.snapshotkeeper.bounds import Memory
from sandbox.supervisor.snapshotkeeper.descent import Descent
from sandbox.supervisor.snapshotkeeper.store import MAX_SNAPSHOTS, Store, opened

from ....support.pictures import picture
from ....support.treechanges import KINDS, PATHS, begin, change

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def store(work: Path) -> Iterator[Store]:
    root = opened(str(work))
    yield Store(root, Memory(GIB))
    os.close(root)


# --- random trees and changes, against what they were


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(PATHS),
        st.sampled_from(PATHS),
        st.binary(max_size=9),
        st.integers(0, 40),
    ),
    max_size=8,
)
STEPS = st.tuples(CHANGES, st.sampled_from(["take", "restore", "drop"]), st.integers(0, 2))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(CHANGES, st.lists(STEPS, min_size=1, max_size=8))
def test_whatever_is_done_to_a_tree_a_restore_gives_back_what_it_was(
    first: list[tuple[str, str, str, bytes, int]],
    then: list[tuple[list[tuple[str, str, str, bytes, int]], str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        begin(root)
        descriptor = opened(folder)
        store = Store(descriptor, Memory(GIB))
        for each in first:
            change(root, *each)
        pictures = {"0": picture(root)}
        store.take("0")
        assert picture(root) == pictures["0"], "taking a snapshot changes nothing"
        for changes, what, number in [*then, ([], "restore", 0)]:
            for each in changes:
                change(root, *each)
            name = str(number)
            if what == "take" and name not in pictures:
                pictures[name] = picture(root)
                store.take(name)
            elif what == "restore" and name in pictures:
                store.restore(name)
                assert picture(root) == pictures[name]
            elif what == "drop" and name in pictures and number:
                store.drop(name)
                del pictures[name]
        os.close(descriptor)


# --- what is copied


def age() -> None:
    """Wait until what was written before is certainly older than what is read now."""
    time.sleep(taking.TICK_NS / 1e9 * 2)


def test_of_what_has_not_changed_nothing_is_read_or_copied(
    work: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "d").mkdir()
    for number in range(20):
        (work / "d" / str(number)).write_bytes(b"x" * 1000)
    age()
    monkeypatch.setattr(mappings, "mapped_inodes", frozenset[int])  # whatever else runs here
    first = store.take("one")
    assert (first["files"], first["bytes"], first["copied_bytes"]) == (20, 20_000, 20_000)
    read: list[int] = []
    old = contents.read
    monkeypatch.setattr(
        contents, "read", lambda fd, *rest: (read.append(os.fstat(fd).st_ino), old(fd, *rest))[1]
    )
    (work / "d" / "7").write_bytes(b"y" * 1000)
    second = store.take("two")
    assert read == [(work / "d" / "7").stat().st_ino]
    assert (second["files"], second["bytes"], second["copied_bytes"]) == (20, 20_000, 1000)


def test_of_a_large_file_only_the_changed_part_is_copied(work: Path, store: Store) -> None:
    (work / "large").write_bytes(os.urandom(8 * MIB))
    assert store.take("one")["copied_bytes"] == 8 * MIB
    with (work / "large").open("r+b") as file:
        file.seek(3 * MIB + 5)
        file.write(b"changed")
    before = picture(work)
    assert store.take("two")["copied_bytes"] == MIB
    (work / "large").unlink()
    store.restore("two")
    assert picture(work) == before
    assert store.take("three")["copied_bytes"] == 0, "what was put back is known"


def test_a_file_that_was_moved_or_replaced_by_the_same_is_not_copied_again(
    work: Path, store: Store
) -> None:
    (work / "a").write_bytes(os.urandom(MIB))
    (work / "b").write_bytes(os.urandom(MIB))
    store.take("one")
    (work / "a").rename(work / "c")
    shutil.copy(work / "b", work / "copy")
    (work / "copy").rename(work / "b")
    assert store.take("two")["copied_bytes"] == 0


def test_a_change_within_a_tick_of_the_clock_is_not_missed(
    work: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the times of files are coarse, two writes can have the same."""
    monkeypatch.setattr(taking, "stamp", lambda info: (info.st_size, 0, 0, 0))
    (work / "file").write_bytes(b"one")
    store.take("one")
    (work / "file").write_bytes(b"two")
    store.take("two")
    (work / "file").unlink()
    store.restore("two")
    assert (work / "file").read_bytes() == b"two"


def test_a_change_through_a_mapping_is_not_missed(
    work: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a second write to a page the system notes no time."""
    # On this machine there may be processes that nobody may look into: they have mapped nothing.
    monkeypatch.setattr(mappings, "_is_anothers", lambda _: True)
    (work / "file").write_bytes(b"." * 4096)
    with mapping_process(work / "file") as write:
        write(b"1")
        age()
        store.take("one")
        age()
        before = (work / "file").stat().st_mtime_ns
        write(b"2")
        assert (work / "file").stat().st_mtime_ns == before, "or this is no test"
        assert store.take("two")["copied_bytes"] == 4096
        store.restore("one")
        assert (work / "file").read_bytes()[:1] == b"1"
        store.restore("two")
        assert (work / "file").read_bytes()[:1] == b"2"


@contextmanager
def mapping_process(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Another process that has mapped a file, and a function that has it write its first byte."""
    code = (
        "import mmap, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "mapped = mmap.mmap(file.fileno(), 0)\n"
        "while byte := sys.stdin.buffer.read(1):\n"
        "    mapped[0:1] = byte\n"
        "    sys.stdout.buffer.write(b'.'); sys.stdout.buffer.flush()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def write(byte: bytes) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(byte)
            process.stdin.flush()
            assert process.stdout.read(1) == b"."

        yield write
        process.stdin.close()


def test_holes_are_neither_kept_nor_filled(work: Path, store: Store) -> None:
    with (work / "sparse").open("wb") as file:
        file.seek(5 * GIB)
        file.write(b"end")
    with (work / "zeros").open("wb") as file:
        file.truncate(2 * GIB)
    before = picture_of_sizes(work)
    info = store.take("one")
    assert info["copied_bytes"] <= MIB
    (work / "sparse").unlink()
    (work / "zeros").write_bytes(b"")
    store.restore("one")
    assert picture_of_sizes(work) == before
    with (work / "sparse").open("rb") as file:
        file.seek(5 * GIB)
        assert file.read() == b"end"


def picture_of_sizes(work: Path) -> dict[str, tuple[int, int, bool]]:
    infos = {path.name: path.stat() for path in work.iterdir()}
    return {
        name: (info.st_size, info.st_mtime_ns, info.st_blocks * 512 < 2 * MIB)
        for name, info in infos.items()
    }


def test_a_file_that_changes_each_time_it_is_read_is_told(
    work: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "log").write_bytes(b"line\n")
    (work / "quiet").write_bytes(b"quiet")
    old = contents.read

    def read(fd: int, size: int, *rest: Any) -> Any:
        found = old(fd, size, *rest)
        if size != 5 or os.pread(fd, 5, 0) == b"line\n":
            with (work / "log").open("ab") as file:
                file.write(b"line\n")
        return found

    monkeypatch.setattr(contents, "read", read)
    info = store.take("one")
    assert (info["changing"], info["changing_count"]) == (["log"], 1)
    monkeypatch.undo()
    store.restore("one")
    assert (work / "log").read_bytes() == b"line\n" * taking.ATTEMPTS


# --- shapes


def test_two_files_of_the_same_bytes_stay_two(work: Path, store: Store) -> None:
    for name in ("a", "b"):
        (work / name).write_bytes(b"same")
        os.utime(work / name, ns=(1, 1))
    store.take("one")
    (work / "b").unlink()
    os.link(work / "a", work / "b")
    store.restore("one")
    assert (work / "a").stat().st_ino != (work / "b").stat().st_ino
    assert picture(work)["b"] == ("file", 0o644, 1, b"same", [])


def test_a_tree_deeper_than_any_path_is_put_back(work: Path, store: Store) -> None:
    def dig(depth: int) -> list[str]:
        """Go down as far as it goes, or make it; what is at each level."""
        found: list[str] = []
        here = os.open(work, os.O_RDONLY)
        for _ in range(depth):
            with suppress(FileExistsError):
                os.mkdir("d" * 100, dir_fd=here)
            below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        found = os.listdir(here)
        os.close(here)
        return found

    dig(1000)
    info = store.take("one")
    assert (info["folders"], info["files"]) == (1000, 1)
    store.restore("one")
    with Descent(opened(str(work))) as at:
        at.enter("d" * 100)
        assert at.remove("d" * 100) == 1000
    (work / ("d" * 100) / "more").mkdir()
    done = store.restore("one")
    assert (done["written"], done["removed"]) == (1, 1)
    with Descent(opened(str(work))) as at:
        assert at.remove("d" * 100) == 1001


def test_what_no_snapshot_holds_is_left_where_it_is_and_told_when_it_is_gone(
    work: Path, store: Store
) -> None:
    os.mkfifo(work / "fifo")
    os.mkfifo(work / "gone")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(work / "socket"))
    info = store.take("one")
    assert (sorted(info["left_out"]), info["left_out_count"]) == (["fifo", "gone", "socket"], 3)
    (work / "gone").unlink()
    os.mkfifo(work / "new")
    done = store.restore("one")
    assert (done["lost"], done["lost_count"], done["removed"]) == (["gone"], 1, 1)
    assert sorted(os.listdir(work)) == ["fifo", "socket"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_another_filesystem_below_is_left_alone(work: Path, store: Store) -> None:
    (work / "mounted").mkdir()
    with mounted(work / "mounted", "size=1m"):
        (work / "mounted" / "file").write_text("theirs")
        (work / "file").write_text("ours")
        info = store.take("one")
        assert (info["files"], info["left_out"]) == (1, ["mounted"])
        (work / "mounted" / "file").write_text("still theirs")
        (work / "file").unlink()
        store.restore("one")
        assert (work / "mounted" / "file").read_text() == "still theirs"
        assert (work / "file").read_text() == "ours"


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


# --- what does not fit, or goes wrong


def test_a_snapshot_that_does_not_fit_is_refused_with_figures_and_changes_nothing(
    work: Path,
) -> None:
    root = opened(str(work))
    memory = Memory(24 * MIB)
    store = Store(root, memory)
    (work / "small").write_bytes(b"small")
    store.take("small")
    (work / "large").write_bytes(os.urandom(100 * MIB))
    before = picture(work)
    with pytest.raises(QuotaExceeded, match=r"24\.0 MiB") as caught:
        store.take("large")
    assert caught.value.remedy
    del caught  # and with it what was copied
    memory.give_back()
    assert picture(work) == before
    with pytest.raises(NotFound):
        store.restore("large")
    (work / "small").write_bytes(b"changed")
    store.restore("small")
    assert list(picture(work)) == [".", "small"]
    (work / "other").write_bytes(os.urandom(MIB))
    store.take("fits")
    os.close(root)


def test_a_snapshot_leaves_memory_to_others(work: Path) -> None:
    root = opened(str(work))
    store = Store(root, Memory(GIB, reserve_bytes=1 << 50))
    (work / "file").write_bytes(os.urandom(8 * MIB))
    with pytest.raises(QuotaExceeded, match=r"memory .* MiB are free"):
        store.take("one")
    os.close(root)


def test_what_is_dropped_is_freed(work: Path, store: Store) -> None:
    (work / "large").write_bytes(os.urandom(64 * MIB))
    store.take("one")
    (work / "large").write_bytes(os.urandom(64 * MIB))
    both = store.take("two")["held_bytes"]
    one = store.drop("two")["held_bytes"]
    assert both - one > 48 * MIB
    assert one - store.drop("one")["held_bytes"] > 48 * MIB
    with pytest.raises(NotFound):
        store.drop("one")


def test_names_and_numbers_of_snapshots_are_bounded(work: Path, store: Store) -> None:
    for number in range(MAX_SNAPSHOTS):
        store.take(str(number))
    with pytest.raises(QuotaExceeded):
        store.take("more")
    with pytest.raises(Conflict):
        store.drop("1"), store.take("0")
    with pytest.raises(NotFound):
        store.restore("1")


def test_more_entries_or_more_time_than_allowed_is_refused(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1001):
        (work / str(number)).touch()
    root = opened(str(work))
    with pytest.raises(TooMuchWork):
        Store(root, Memory(GIB), limit_s=0).take("slow")
    monkeypatch.setattr(bounds, "MAX_ENTRIES", 1000)
    with pytest.raises(QuotaExceeded, match="1000 files"):
        Store(root, Memory(GIB)).take("many")
    os.close(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("options", ["size=16m", "size=64m,nr_inodes=40"])
def test_a_restore_that_has_no_room_is_refused_with_figures_and_changes_nothing(
    work: Path, options: str
) -> None:
    with mounted(work, options):
        root = opened(str(work))
        store = Store(root, Memory(GIB))
        (work / "data").write_bytes(os.urandom(10 * MIB))
        for number in range(20):
            (work / f"{number}").write_bytes(b"x")
        store.take("one")
        (work / "data").write_bytes(os.urandom(10 * MIB))
        for number in range(20):
            (work / f"{number}").write_bytes(b"y")
        before = picture(work)
        with pytest.raises(FileError, match=r"that takes 10\.\d MiB and 22 files") as caught:
            store.restore("one")
        assert caught.value.reason == "no_space"
        assert picture(work) == before
        with suppress(OSError), (work / "filling").open("wb") as file:
            while True:
                file.write(bytes(MIB))
        (work / "data").unlink()
        for number in range(20):
            (work / f"{number}").unlink()
        os.close(root)


def mixed(work: Path) -> None:
    """A tree with something of each kind."""
    (work / "d" / "e").mkdir(parents=True)
    (work / "d" / "e" / "file").write_bytes(b"deep")
    (work / "changed").write_bytes(b"one")
    (work / "mode").write_bytes(b"mode")
    (work / "link").symlink_to("changed")
    (work / "kind").mkdir()
    os.link(work / "changed", work / "d" / "again")
    (work / "locked").mkdir()
    (work / "locked" / "file").write_bytes(b"locked")
    (work / "locked").chmod(0o500)


def unmix(work: Path) -> None:
    """All that can be done to such a tree."""
    (work / "locked").chmod(0o700)
    shutil.rmtree(work / "d" / "e")
    (work / "changed").write_bytes(b"two")
    (work / "mode").chmod(0o600)
    (work / "link").unlink()
    (work / "link").symlink_to("elsewhere")
    (work / "kind").rmdir()
    (work / "kind").write_bytes(b"a file now")
    (work / "new" / "inner").mkdir(parents=True)
    (work / "new" / "inner" / "file").write_bytes(b"new")
    (work / "new").chmod(0o500)
    (work / "locked" / "file").write_bytes(b"broken in")
    (work / "locked").chmod(0o500)


@pytest.mark.parametrize("call", ["rename", "chmod", "utime", "link", "symlink", "mkdir", "pwrite"])
def test_a_failure_at_any_step_of_a_restore_leaves_everything_as_it_was(
    work: Path, store: Store, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    mixed(work)
    wanted = picture(work)
    store.take("one")
    unmix(work)
    before = picture(work)
    for failing in range(100):
        with monkeypatch.context() as patched:
            patched.setattr(os, call, failing_at(getattr(os, call), failing))
            try:
                store.restore("one")
            except OSError:
                pass
            else:
                break
        assert picture(work) == before, failing
    assert failing > 0, "it was never called"
    del wanted["."]  # whose time may be the one thing that could not be given back
    assert {**picture(work), **wanted} == picture(work)


def failing_at(real: Callable[..., Any], number: int, *, ever_after: bool = False) -> Any:
    """A function of the system that fails at its call of that number, from 0."""
    calls = itertools.count()

    def called(*arguments: Any, **named: Any) -> Any:
        call = next(calls)
        if call == number or (ever_after and call > number):
            raise OSError(errno.EIO, "Input/output error")
        return real(*arguments, **named)

    return called


def test_what_could_not_be_undone_is_told_and_not_deleted(
    work: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed(work)
    store.take("one")
    unmix(work)
    monkeypatch.setattr(os, "rename", failing_at(os.rename, 3, ever_after=True))
    with pytest.raises(InfrastructureError, match="of 4 steps 4 could not be undone") as caught:
        store.restore("one")
    [left] = work.glob(".sandbox-restore-*")
    assert left.name in caught.value.message
    monkeypatch.undo()
    store.restore("one")
    assert not list(work.glob(".sandbox-restore-*"))
