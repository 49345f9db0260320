"""Files by their hash, on disk."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from sandbox.egress.packagefiles import ABANDONED_S, FileStore


def put(store: FileStore, data: bytes) -> str:
    digest = sha256(data).hexdigest()
    store.add(digest, lambda into: _all(into.write(data)))
    return digest


def _all(written: int) -> None:
    assert written


def test_a_file_is_kept_under_its_hash_and_read_from_its_beginning(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "packages", 100)
    assert store.open("0" * 64) is None
    digest = put(store, b"hello")
    opened = store.open(digest)
    assert opened is not None
    with opened:
        assert opened.read() == b"hello"
    assert (tmp_path / "packages").stat().st_mode & 0o777 == 0o700


def test_what_has_another_hash_is_not_kept(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 100)
    with pytest.raises(ValueError, match="not what its page says"):
        store.add("0" * 64, lambda into: _all(into.write(b"hello")))
    assert list(tmp_path.iterdir()) == []


def test_what_was_damaged_is_removed_and_not_read(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 100)
    digest = put(store, b"hello")
    (tmp_path / digest).write_bytes(b"jello")
    assert store.open(digest) is None
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "packages", 100)
    digest = put(store, b"hello")
    (tmp_path / "other").write_bytes(b"hello")
    (tmp_path / "packages" / digest).unlink()
    (tmp_path / "packages" / digest).symlink_to(tmp_path / "other")
    assert store.open(digest) is None


def test_what_was_not_asked_for_longest_makes_room(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 10)
    first, second = put(store, b"aaaa"), put(store, b"bbbb")
    for digest, when in ((first, 100), (second, 200)):
        os.utime(tmp_path / digest, (when, when))
    opened = store.open(first)  # now the latest
    assert opened is not None
    opened.close()
    third = put(store, b"cccc")
    assert {path.name for path in tmp_path.iterdir()} == {first, third}


def test_a_file_that_a_download_left_goes_when_it_is_old(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 100)
    for name, age_s in (("part-old", ABANDONED_S + 10), ("part-new", 0)):
        (tmp_path / name).write_bytes(b"x")
        when = (tmp_path / name).stat().st_mtime - age_s
        os.utime(tmp_path / name, (when, when))
    put(store, b"hello")
    assert not (tmp_path / "part-old").exists()
    assert (tmp_path / "part-new").exists()


def test_an_interrupted_download_leaves_nothing(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 100)

    def fail(into: object) -> None:
        raise OSError("it broke off")

    with pytest.raises(OSError, match="broke off"):
        store.add("0" * 64, fail)
    assert list(tmp_path.iterdir()) == []
