from __future__ import annotations

import mmap
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.errors import Conflict, NotFound, QuotaExceeded, TooMuchWork
from sandbox.supervisor.snapshotkeeper import bounds
from sandbox.supervisor.snapshotkeeper.bounds import Memory
from sandbox.supervisor.snapshotkeeper.store import MAX_SNAPSHOTS, Store, opened

from ....support.pictures import picture

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


ODD = os.fsdecode(b"\xff\xfe")
PATHS = ["a", "b", ODD, "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "new", f"new/{ODD} \n"]


def begin(root: Path) -> None:
    """A tree for changes to meet something in."""
    (root / "d" / "e").mkdir(parents=True)
    for number, name in enumerate(["a", "b", "d/a", "d/e/a"]):
        (root / name).write_bytes(b"content" * number)
    os.link(root / "a", root / "d" / "b")
    (root / ODD).symlink_to("a")


def change(root: Path, kind: str, one: str, other: str, data: bytes, number: int) -> None:
    """Do something to a tree; what cannot be done is left."""
    at, to = root / one, root / other
    mode = (0o777, 0o644, 0o600, 0o400, 0o000, 0o1755, 0o555)[number % 7]
    try:
        if kind == "write":
            at.write_bytes(data)
        elif kind == "append":
            with at.open("ab") as file:
                file.write(data)
        elif kind == "replace":
            (root / ".new").write_bytes(data)
            (root / ".new").rename(at)
        elif kind == "same size":
            at.write_bytes(b"!" * at.stat().st_size)
        elif kind == "hole":
            with at.open("wb") as file:
                file.seek(number * 100_000)
                file.write(data)
        elif kind == "map":
            with at.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[0] = number % 256
        elif kind == "folder":
            at.mkdir(parents=True)
        elif kind == "link":
            at.symlink_to(other)
        elif kind == "hard link":
            os.link(at, to, follow_symlinks=False)
        elif kind == "fifo":
            os.mkfifo(at)
        elif kind == "move":
            at.rename(to)
        elif kind == "mode":
            if not at.is_symlink():
                at.chmod(mode)
        elif kind == "time":
            os.utime(at, ns=(number, number * 1_000_000_007), follow_symlinks=False)
        elif kind == "delete":
            shutil.rmtree(at) if at.is_dir() and not at.is_symlink() else at.unlink()
    except (OSError, ValueError):
        pass


KINDS = ["write", "append", "replace", "same size", "hole", "map", "folder", "link", "hard link"]
KINDS += ["hard link", "move", "move", "mode", "time", "delete", "delete"]
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


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
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
