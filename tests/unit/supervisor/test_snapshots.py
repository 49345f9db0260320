from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from sandbox.errors import Conflict, InfrastructureError, NotFound, QuotaExceeded
from sandbox.supervisor import snapshots as module
from sandbox.supervisor.children import Child, Children
from sandbox.supervisor.environment import base_environment
from sandbox.supervisor.snapshots import Snapshots
from sandbox.supervisor.tasks import Background

from ...support.pictures import picture
from ...support.supervisorprocess import ROOT

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def kept(work: Path, reserve_bytes: int = 0) -> AsyncIterator[tuple[Snapshots, Children]]:
    """Snapshots of a folder, and the processes that there are for them."""
    children = Children()
    children.start()
    env = base_environment(str(work), str(work))
    try:
        async with asyncio.TaskGroup() as group:
            yield Snapshots(str(work), children, env, Background(group), reserve_bytes), children
    finally:
        children.stop()


def keeper(children: Children) -> Child:
    """The one process that there is."""
    [child] = children
    return child


async def ended(child: Child) -> None:
    """Wait for the end of a process."""
    with anyio.fail_after(10):
        await asyncio.shield(child.exit)


async def test_a_snapshot_is_taken_put_back_and_dropped(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to("d")
    before = picture(tmp_path)
    with anyio.fail_after(30):
        async with kept(tmp_path) as (snapshots, children):
            info = await snapshots.take("one")
            assert (info.files, info.folders, info.links) == (1, 1, 1)
            assert (info.bytes, info.copied_bytes) == (1000, 1000)
            assert (info.changing, info.left_out) == ((), ())
            assert snapshots.names() == ("one",)
            (tmp_path / "d" / "file").unlink()
            (tmp_path / "new").touch()
            done = await snapshots.restore("one")
            assert (done.written, done.written_bytes, done.removed, done.kept) == (1, 1000, 1, 1)
            assert picture(tmp_path) == before
            assert (await snapshots.take("two")).copied_bytes == 0
            child = keeper(children)
            await snapshots.drop("one")
            await snapshots.drop("two")
            assert snapshots.names() == ()
            await ended(child)


async def test_refusals_are_told_as_what_they_are_and_leave_what_there_was(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with kept(tmp_path) as (snapshots, _):
            for unknown in (snapshots.restore, snapshots.drop):
                with pytest.raises(NotFound):
                    await unknown("none")
            await snapshots.take("one")
            with pytest.raises(Conflict):
                await snapshots.take("one")
            assert snapshots.names() == ("one",)
        async with kept(tmp_path, reserve_bytes=1 << 50) as (snapshots, children):
            with pytest.raises(QuotaExceeded) as caught:
                await snapshots.take("one")
            assert caught.value.remedy
            assert snapshots.names() == ()
            assert not [child for child in children if child.alive and not child.killed]
        async with kept(tmp_path / "nowhere") as (snapshots, _):
            with pytest.raises(InfrastructureError, match="No snapshot can be kept"):
                await snapshots.take("one")


async def test_the_event_loop_goes_on_and_operations_wait_for_each_other(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with kept(tmp_path) as (snapshots, children):
            await snapshots.take("one")
            child = keeper(children)
            os.kill(child.pid, signal.SIGSTOP)
            async with asyncio.TaskGroup() as group:
                second = group.create_task(snapshots.take("two"))
                third = group.create_task(snapshots.restore("two"))
                for _ in range(50):
                    await asyncio.sleep(0.001)
                assert not second.done()
                assert not third.done()
                os.kill(child.pid, signal.SIGCONT)
            assert third.result().kept == 0


async def test_what_was_begun_goes_on_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with kept(tmp_path) as (snapshots, children):
            await snapshots.take("one")
            child = keeper(children)
            os.kill(child.pid, signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await snapshots.take("two")
            os.kill(child.pid, signal.SIGCONT)
            await snapshots.take("three")
            assert snapshots.names() == ("one", "two", "three")


async def test_snapshots_whose_process_was_killed_are_told_as_lost(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with kept(tmp_path) as (snapshots, children):
            await snapshots.take("one")
            await snapshots.take("two")
            child = keeper(children)
            os.kill(child.pid, signal.SIGKILL)
            await ended(child)
            assert snapshots.names() == ()
            with pytest.raises(NotFound, match=r"was lost: .* SIGKILL"):
                await snapshots.restore("one")
            await snapshots.drop("one")
            with pytest.raises(NotFound, match="no snapshot"):
                await snapshots.restore("one")
            await snapshots.take("two")
            await snapshots.restore("two")
            assert snapshots.names() == ("two",)


async def test_an_operation_whose_process_is_killed_meanwhile_fails_at_once(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with kept(tmp_path) as (snapshots, children):
            await snapshots.take("one")
            child = keeper(children)
            os.kill(child.pid, signal.SIGSTOP)
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(refusal(snapshots))
                await asyncio.sleep(0.01)
                os.kill(child.pid, signal.SIGKILL)
            assert "ended by SIGKILL" in waiting.result().message
            assert snapshots.names() == ()


async def test_a_process_that_does_not_answer_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENDING_S", 0.05)
    with anyio.fail_after(30):
        async with kept(tmp_path) as (snapshots, children):
            await snapshots.take("one")
            child = keeper(children)
            os.kill(child.pid, signal.SIGSTOP)
            monkeypatch.setattr(module, "PATIENCE_S", 0.05)
            assert "did not answer" in (await refusal(snapshots)).message
            await ended(child)


async def refusal(snapshots: Snapshots) -> InfrastructureError:
    """The error with which taking another snapshot ends."""
    with pytest.raises(InfrastructureError) as caught:
        await snapshots.take("another")
    return caught.value


async def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
sys.path.insert(0, {str(ROOT)!r})
from sandbox.supervisor.children import Children
from sandbox.supervisor.snapshots import Snapshots
from sandbox.supervisor.tasks import Background
async def main():
    children = Children()
    children.start()
    async with asyncio.TaskGroup() as group:
        await Snapshots(sys.argv[1], children, {{}}, Background(group)).take("one")
        print(*[child.pid for child in children], flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen(  # noqa: ASYNC220  # it is read from once
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        watched = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    with anyio.fail_after(10):
        await anyio.wait_readable(watched)
    os.close(watched)
