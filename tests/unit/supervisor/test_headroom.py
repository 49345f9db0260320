"""Whether another copy of a kernel fits in what its session may use."""

from __future__ import annotations

import os

import pytest

from sandbox.errors import QuotaExceeded
from sandbox.supervisor import headroom
from sandbox.supervisor.headroom import Headroom

MIB = 1024 * 1024


@pytest.fixture
def a_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "resident_bytes", lambda _pid: 1024 * MIB)


@pytest.mark.usefixtures("a_gigabyte")
def test_a_copy_needs_a_quarter_of_the_kernel_and_a_refusal_says_the_figures() -> None:
    Headroom(2048 * MIB, 1792 * MIB).check(1)
    with pytest.raises(QuotaExceeded, match=r"1,024 MiB.*256 MiB.*1,793 of its 2,048 MiB"):
        Headroom(2048 * MIB, 1793 * MIB).check(1)


def test_a_small_kernel_needs_sixteen_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "resident_bytes", lambda _pid: MIB)
    Headroom(100 * MIB, 84 * MIB).check(1)
    with pytest.raises(QuotaExceeded):
        Headroom(100 * MIB, 85 * MIB).check(1)


def test_copies_of_files_in_memory_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "memory.max": b"1000\n",
        "memory.current": b"900\n",
        "memory.stat": b"anon 100\ninactive_file 300\nactive_file 200\n",
    }
    monkeypatch.setattr(headroom, "_read", lambda name: files[name])
    assert headroom.headroom() == Headroom(1000, 400)


def test_where_there_is_no_limit_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "memory/memory.limit_in_bytes": b"9223372036854771712\n",
        "memory/memory.usage_in_bytes": b"900\n",
        "memory/memory.stat": b"total_inactive_file 0\ntotal_active_file 0\n",
    }
    monkeypatch.setattr(headroom, "_read", lambda name: files[name])
    assert headroom.headroom() is None


def test_a_process_that_has_ended_has_nothing() -> None:
    assert headroom.resident_bytes(2**22 + 1) == 0
    assert headroom.resident_bytes(os.getpid()) > MIB
    assert 0 < headroom.own_bytes(os.getpid()) <= headroom.resident_bytes(os.getpid())
