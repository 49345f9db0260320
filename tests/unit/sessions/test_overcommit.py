"""What sessions may use together, against what their host has."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sandbox.errors import QuotaExceeded
from sandbox.policy import Limits, Policy
from sandbox.runtimes.base import EngineInfo
from sandbox.sessions.models import Caller
from sandbox.sessions.overcommit import Amounts, largest, missing, of_host, of_sessions

from .controllers import Controllers

GIB = 1024**3


def policy(**limits: int) -> Policy:
    return Policy(name="p", limits=Limits(**limits))  # pyright: ignore[reportArgumentType]


def engine(memory_bytes: int) -> EngineInfo:
    return EngineInfo("e", "1", "1", 2, ("runc",), True, "x86_64", memory_bytes, 2)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of a machine with 8 GiB."""
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/fs").mkdir()
    (tmp_path / "meminfo").write_text(f"MemTotal: {8 * GIB // 1024} kB\nMemFree: 5 kB\n")
    (tmp_path / "sys/kernel/pid_max").write_text("32768\n")
    (tmp_path / "sys/kernel/threads-max").write_text("60000\n")
    (tmp_path / "sys/fs/file-max").write_text("800000\n")
    return tmp_path


def test_a_host_that_is_this_machine_is_known_by_its_memory(proc: Path) -> None:
    assert of_host(engine(8 * GIB), proc) == Amounts(8 * GIB, 32_768, 800_000)
    assert of_host(engine(9 * GIB), proc) == Amounts(9 * GIB, 0, 0)
    assert of_host(engine(8 * GIB), proc / "absent") == Amounts(8 * GIB, 0, 0)


def test_what_is_missing_is_told_in_words_and_what_is_not_known_is_not() -> None:
    one = of_sessions([policy(memory_bytes=2 * GIB, pids=100, open_files=1000)])
    assert one == Amounts(2 * GIB, 100, 100_000)
    host = Amounts(8 * GIB, 32_768, 350_000)
    assert missing(host, one * 3) == []
    assert missing(host, one * 4) == ["400,000 open files, and the host has 350,000"]
    assert [text.split()[0] for text in missing(host, one * 400)] == [
        "800GiB",
        "40,000",
        "40,000,000",
    ]
    assert missing(Amounts(0, 0, 0), one * 400) == []


def test_the_largest_session_is_the_largest_of_each() -> None:
    big, many = policy(memory_bytes=4 * GIB, pids=64), policy(memory_bytes=GIB, pids=512)
    assert largest([big, many]) == Amounts(4 * GIB, 512, 512 * 1024)
    assert largest([]) == Amounts(0, 0, 0)


@pytest.mark.anyio
async def test_sessions_that_the_host_cannot_hold_are_refused_where_that_is_set(
    controllers: Controllers,
) -> None:
    callers = [Caller(f"c{number}") for number in range(12)]  # 12 × 1 GiB; the engine has 8
    async with controllers.running(overcommit="warn") as manager:
        for caller in callers:
            await manager.open(caller)
        for caller in callers:
            await manager.close(caller)
    opened: list[str] = []
    refused: list[QuotaExceeded] = []
    async with controllers.running(overcommit="refuse") as manager:

        async def open_one(caller: Caller) -> None:
            try:
                opened.append((await manager.open(caller)).session_id)
            except QuotaExceeded as exc:
                refused.append(exc)

        async with anyio.create_task_group() as tasks:
            for caller in callers:
                tasks.start_soon(open_one, caller)
        assert (len(opened), len(refused)) == (8, 4)
        assert "9GiB of memory, and the host has 8GiB" in refused[0].message
        first = next(caller for caller in callers if manager.list(caller))
        await manager.close(first)
        assert (await manager.open(Caller("late"))).is_usable
