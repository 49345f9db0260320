"""What is full, and who was killed, as the supervisor sees it."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from sandbox.supervisor import evidence, oom
from sandbox.supervisor.oom import OomCount


@pytest.mark.parametrize(
    ("free", "inodes", "found"),
    [(500, 10, None), (10, 10, "bytes"), (0, 0, "bytes"), (500, 0, "inodes")],
)
def test_a_filesystem_is_full_of_bytes_or_of_files(
    monkeypatch: pytest.MonkeyPatch, free: int, inodes: int, found: str | None
) -> None:
    def statvfs(path: str) -> SimpleNamespace:
        if path != "/dev/shm":
            raise FileNotFoundError(path)
        return SimpleNamespace(f_blocks=1000, f_bavail=free, f_files=100, f_favail=inodes)

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert evidence.full_filesystems() == ({"shm": found} if found else {})


def test_a_filesystem_without_a_count_of_files_is_not_full_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = SimpleNamespace(f_blocks=1000, f_bavail=500, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _path: room)
    assert evidence.full_filesystems("/workspace") == {}


def test_processes_killed_since_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom, "read", lambda: OomCount("here", 5, own=True))
    assert evidence.killed_since(OomCount("here", 3, own=True)) == {"oom_kills": 2, "oom_own": True}
    assert evidence.killed_since(OomCount("there", 3, own=True)) == {}
    assert evidence.killed_since(None) == {}
