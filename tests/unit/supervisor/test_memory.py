"""Where the kernel ends nobody when memory runs out, the supervisor ends who uses most of it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from sandbox.supervisor import headroom, memory, oom
from sandbox.supervisor.children import Child, Children, Exit

pytestmark = pytest.mark.anyio

HOARD = (
    "import time; hoard = bytearray(b'x') * (64 << 20); open('ready', 'w').close(); time.sleep(100)"
)


@pytest.fixture
async def children() -> Iterator[Children]:
    children = Children()
    children.start()
    yield children
    children.stop()


def start(children: Children, folder: Path, *argv: str) -> Child:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        return children.spawn(
            list(argv), env=dict(os.environ), cwd=str(folder), stdin=null, stdout=null, stderr=null
        )
    finally:
        os.close(null)


async def exit_when_memory_is_out(
    children: Children,
    waits_for: Child,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    total_mib: int = 1024,
) -> Exit:
    """How one ends when memory has run out once the hoard is there."""

    def meminfo() -> tuple[int, int]:
        free = total_mib / 10 if (folder / "ready").exists() else total_mib
        return total_mib << 20, int(free) << 20

    monkeypatch.setattr(oom, "read", lambda: None)
    monkeypatch.setattr(headroom, "meminfo", meminfo)
    guarding = asyncio.create_task(memory.MemoryGuard(children).run())
    with anyio.fail_after(20):
        ended = await asyncio.shield(waits_for.exit)
    guarding.cancel()
    return ended


async def test_who_uses_most_is_ended_and_others_go_on(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start(children, tmp_path, "sleep", "100")
    hoard = start(children, tmp_path, sys.executable, "-c", HOARD)
    ended = await exit_when_memory_is_out(children, hoard, tmp_path, monkeypatch)
    assert ended == Exit(None, 9)
    assert hoard.is_out_of_memory
    assert other.alive
    assert not other.is_out_of_memory


async def test_a_hoard_that_a_program_has_started_is_ended_alone(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = start(
        children, tmp_path, "sh", "-c", f'{sys.executable} -c "{HOARD}"; exit $(($? - 130))'
    )
    ended = await exit_when_memory_is_out(children, shell, tmp_path, monkeypatch)
    assert ended == Exit(137 - 130, None)
    assert not shell.is_out_of_memory


@pytest.mark.parametrize(("total_mib", "goes"), [(1024, "checkpoint"), (128, "hoard")])
async def test_a_checkpoint_goes_before_all_but_what_uses_far_more(
    children: Children,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    total_mib: int,
    goes: str,
) -> None:
    checkpoint = start(children, tmp_path, "sleep", "100")
    checkpoint.is_frozen = True
    hoard = start(children, tmp_path, sys.executable, "-c", HOARD)
    first = {"checkpoint": checkpoint, "hoard": hoard}[goes]
    ended = await exit_when_memory_is_out(children, first, tmp_path, monkeypatch, total_mib)
    assert ended == Exit(None, 9)
    assert first.is_out_of_memory


async def test_where_the_kernel_counts_its_ends_nobody_is_ended(children: Children) -> None:
    assert oom.read() is not None
    with anyio.fail_after(5):
        await memory.MemoryGuard(children).run()
