"""What fails in one session, or of one duty, stops no other one; the engine is a fake."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sandbox.container.labels import read_labels
from sandbox.errors import InfrastructureError
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.testing import FakeRuntime
from sandbox.workspaces.store import WorkspaceStore

from ...support.waiting import until
from .controllers import Controllers, run

ALICE = Caller("alice")
BOB = Caller("bob")

pytestmark = pytest.mark.anyio


async def test_a_session_that_ends_while_the_journal_cannot_be_written_ends_alone(
    controllers: Controllers,
) -> None:
    async with controllers.running() as manager:
        neighbour = await manager.get(BOB)
        session = await manager.get(ALICE)
        async with session.use():
            await session.kernels.execute("sleep(60)")
        manager._services.journal._db.write("PRAGMA query_only = ON")
        with anyio.fail_after(10):
            await manager.close(ALICE)
        assert controllers.container_ids() == [neighbour.container_id]
        manager._services.journal._db.write("PRAGMA query_only = OFF")
        assert (await run(neighbour, "print(1)")).outputs[0]["text"] == "1\n"


@pytest.mark.parametrize("step", ["kernels", "meter", "info", "record", "quotas"])
async def test_whatever_step_of_a_tear_down_fails_the_container_is_removed(
    controllers: Controllers, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect of ours")

    async with controllers.running() as manager:
        session = await manager.get(ALICE)
        neighbour = await manager.get(BOB)
        target, name = {
            "kernels": (session.kernels, "aclose"),
            "meter": (session, "meter"),
            "info": (session.network, "info"),
            "record": (session._record, "ended"),
            "quotas": (session._services.quotas.usage, "forget"),
        }[step]
        with monkeypatch.context() as patch:
            patch.setattr(target, name, fail)
            session.begin_end("closed", "it was closed by its caller")
            with anyio.fail_after(10):
                await session.wait_over()
            assert controllers.container_ids() == [neighbour.container_id]
        assert (await run(neighbour, "print(1)")).status == "ok"


async def test_a_task_of_the_controller_that_fails_ends_alone(manager: SessionManager) -> None:
    async def fail() -> None:
        raise RuntimeError("a defect of ours")

    manager.start(fail)
    await anyio.lowlevel.checkpoint()
    assert (await run(await manager.get(ALICE), "print(1)")).status == "ok"


async def test_a_container_that_cannot_be_removed_at_the_start_refuses_nobody(
    controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controllers.running(keep=True) as first:
        stuck = await first.get(ALICE)
        kept = await first.get(BOB)
    remove = FakeRuntime.remove

    async def refuse(runtime: FakeRuntime, container_id: str) -> None:
        if container_id == stuck.container_id:
            raise InfrastructureError("device or resource busy")
        await remove(runtime, container_id)

    monkeypatch.setattr(
        "sandbox.sessions.adoption.read_labels",
        _unreadable_for(stuck.claim.sandbox_id),
        raising=True,
    )
    with monkeypatch.context() as patch:
        patch.setattr(FakeRuntime, "remove", refuse)
        async with controllers.running(keep=True) as second:
            with anyio.fail_after(5):
                assert (await second.get(BOB)).session_id == kept.session_id
                assert (await second.open(Caller("new"))).is_usable
            await second.sweep()
            assert stuck.container_id in controllers.container_ids()
            patch.setattr(FakeRuntime, "remove", remove)
            await second.sweep()
            assert stuck.container_id not in controllers.container_ids()


def _unreadable_for(sandbox_id: str) -> Any:
    def read(info: Any) -> Any:
        identity, policy = read_labels(info)
        if identity.sandbox_id == sandbox_id:
            raise KeyError("a label of another version")
        return identity, policy

    return read


async def test_one_duty_that_fails_or_hangs_keeps_no_other_from_its_work(
    controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EXPIRE_EVERY_S", "COMPARE_EVERY_S", "TIDY_EVERY_S"):
        monkeypatch.setattr(f"sandbox.sessions.sweeper.{name}", 0.02)
    pruned: list[float] = []

    async def hang(*_: Any) -> None:
        await anyio.sleep_forever()

    async def fail(*_: Any) -> None:
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr("sandbox.sessions.sweeper.Sweeper._compare", hang)
    monkeypatch.setattr("sandbox.sessions.sweeper.Sweeper._ask_engine", fail)
    monkeypatch.setattr(
        "sandbox.sessions.journal.Journal.prune", lambda _, now: iter(pruned.append(now) or ())
    )
    async with controllers.running() as manager:
        session = await manager.get(ALICE)
        await until(lambda: len(pruned) > 3)
        controllers.ahead_s += session.policy.limits.idle_s + 5
        await until(lambda: controllers.container_ids() == [])


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC, errno.EROFS, errno.EIO])
def test_an_error_of_the_disk_is_one_of_ours_and_the_next_save_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store = WorkspaceStore(tmp_path / "workspaces", quota_bytes=10**6, most=5)
    held = store.take("alice", "w", "s1")
    real = os.open

    def no_more(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(path).endswith((".tar", ".new")) and flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return real(path, flags, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no_more)
        with pytest.raises(InfrastructureError, match="disk"), held.draft(1000):
            raise AssertionError("there is a draft where none can be")
    with held.draft(1000) as draft:
        draft.write(b"x")
        kept = draft.save(1.0)
    assert held.kept() == kept
    held.release()
