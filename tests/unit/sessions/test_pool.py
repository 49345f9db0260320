"""Sandboxes that are ready before they are asked for: how many, for whom, and when no longer."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sandbox.container.labels import LABEL_SANDBOX
from sandbox.errors import InfrastructureError
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID
from sandbox.policy import Policy, load
from sandbox.sessions import pool as pool_module
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.poolinfo import ShelfInfo
from sandbox.sessions.shelf import FORGET_HALF_S, Shelf
from sandbox.testing import FakeEngine

from ...support.waiting import until
from .controllers import Controllers, run

ALICE = Caller("alice")
BOB = Caller("bob")

KEPT = """\
version: 1
pool: {min: 2, max: 3}
limits: {sessions: 100}
"""

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LOOK_EVERY_S", 0.05)


@pytest.fixture
def kept(controllers: Controllers, tmp_path: Path) -> Controllers:
    """Controllers that have one policy, which keeps sandboxes ready."""
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "kept.yaml").write_text(KEPT)
    controllers.policy_set = lambda: load(folder, default="kept")
    return controllers


def shelf(manager: SessionManager, policy: str = "kept") -> ShelfInfo:
    (found,) = [info for info in manager.pool.infos() if info.policy == policy]
    return found


async def filled(manager: SessionManager, ready: int, policy: str = "kept") -> None:
    def is_so() -> bool:
        infos = [info for info in manager.pool.infos() if info.policy == policy]
        return bool(infos) and (infos[0].ready, infos[0].coming) == (ready, 0)

    await until(is_so)


async def test_as_many_as_the_least_are_ready_before_anybody_asks(kept: Controllers) -> None:
    async with kept.running(pool=True) as manager:
        await filled(manager, 2)
        assert len(kept.container_ids()) == 2
        assert manager.list(ALICE) == []
    assert kept.container_ids() == []


async def test_who_asks_gets_theirs_before_another_one_is_made(
    kept: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept.running(pool=True) as manager:
        await filled(manager, 2)
        monkeypatch.setattr(pool_module, "AFTER_S", 0.2)
        monkeypatch.setattr(pool_module, "LOOK_EVERY_S", 60.0)
        await manager.open(ALICE, policy="kept")  # which waits out the look that has begun
        await until(lambda: shelf(manager).ready >= 2 and not shelf(manager).coming)
        session = await manager.open(BOB, policy="kept")
        assert session.info().was_ready
        assert not shelf(manager).coming
        await until(lambda: shelf(manager).ready >= 2)


async def test_in_a_rush_none_is_made_while_enough_are_ready(
    kept: Controllers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pool_module, "LOOK_EVERY_S", 60.0)
    monkeypatch.setattr(pool_module, "AFTER_S", 0.0)
    monkeypatch.setattr(pool_module, "QUIET_S", 0.3)
    monkeypatch.setattr(pool_module, "PUT_OFF_S", 60.0)
    (tmp_path / "kept/kept.yaml").write_text(KEPT.replace("min: 2, max: 3", "min: 8, max: 8"))
    async with kept.running(pool=True) as manager:
        await filled(manager, 8)
        for _ in range(6):
            assert not shelf(manager).coming
            assert (await manager.open(ALICE, policy="kept", reuse=False)).info().was_ready
            await anyio.sleep(0.05)
        assert (shelf(manager).ready, shelf(manager).coming) == (2, 0)
        await manager.open(ALICE, policy="kept", reuse=False)  # less than a quarter is left
        await until(lambda: shelf(manager).coming > 0)


async def test_without_a_pool_none_is_made_that_nobody_asked_for(kept: Controllers) -> None:
    async with kept.running(pool=False) as manager:
        session = await manager.open(ALICE, policy="kept")
        assert kept.container_ids() == [session.container_id]
        assert not session.info().was_ready
        assert manager.pool.infos() == []


async def test_a_session_gets_one_that_is_ready_with_its_kernel_and_another_follows(
    kept: Controllers,
) -> None:
    async with kept.running(pool=True) as manager:
        await filled(manager, 2)
        before = set(kept.container_ids())
        session = await manager.open(ALICE, policy="kept")
        assert session.container_id in before
        assert session.info().was_ready
        (kernel,) = session.info().kernels
        assert kernel.kernel_id == DEFAULT_KERNEL_ID
        result = await run(session, "print(1)")
        assert (result.outputs[0]["text"], result.execution_count) == ("1\n", 1)
        await filled(manager, 2)
        assert shelf(manager).given == 1
        assert len(kept.container_ids()) == 3


async def test_no_two_sessions_get_the_same_one(kept: Controllers) -> None:
    async with kept.running(pool=True) as manager:
        await filled(manager, 2)
        sessions = []

        async def open_one(caller: Caller) -> None:
            sessions.append(await manager.open(caller, policy="kept", reuse=False))

        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(open_one, (ALICE, BOB)[number % 2])
        assert len({session.container_id for session in sessions}) == 6
        assert len({session.claim.uid for session in sessions}) == 6
        assert shelf(manager).given + shelf(manager).missed == 6


async def test_a_closed_sessions_container_is_never_used_again(kept: Controllers) -> None:
    async with kept.running(pool=True) as manager:
        await filled(manager, 2)
        session = await manager.open(ALICE, policy="kept")
        used = session.container_id
        await manager.close(ALICE, session.session_id)
        await filled(manager, 2)
        assert used not in kept.container_ids()


async def test_one_that_has_died_is_given_to_nobody_and_replaced(
    kept: Controllers, engine: FakeEngine
) -> None:
    async with kept.running(pool=True) as manager:
        await filled(manager, 2)
        dead = set(kept.container_ids())
        for container_id in dead:
            await engine.kill(container_id)
        session = await manager.open(ALICE, policy="kept")
        assert session.container_id not in dead
        assert (await run(session, "print(1)")).status == "ok"
        await until(lambda: shelf(manager).ready >= 2, 10)
        assert dead.isdisjoint(kept.container_ids())


async def test_one_whose_image_is_no_longer_that_of_its_policy_is_not_given(
    kept: Controllers,
) -> None:
    async with kept.running(pool=True) as manager:
        await filled(manager, 2)
        old = set(kept.container_ids())
        kept.tag = "newer"
        session = await manager.open(ALICE, policy="kept")
        assert session.container_id not in old
        assert session.info().image == "sandbox/python:newer"
        await until(lambda: old.isdisjoint(kept.container_ids()))


async def test_one_that_has_waited_too_long_is_replaced(
    kept: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept.running(pool=True) as manager:
        await filled(manager, 2)
        old = set(kept.container_ids())
        kept.ahead_s = pool_module.MAX_AGE_S + 1
        await until(lambda: old.isdisjoint(kept.container_ids()))
        await filled(manager, 2)


async def test_the_sweeper_leaves_what_is_ready(kept: Controllers) -> None:
    async with kept.running(pool=True) as manager:
        await filled(manager, 2)
        before = kept.container_ids()
        await manager.sweep()
        assert kept.container_ids() == before


async def test_the_engines_memory_bounds_them(
    kept: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MEMORY_SHARE", 10**12)
    async with kept.running(pool=True) as manager:
        await until(lambda: manager.pool.infos() != [])
        await anyio.sleep(0.2)  # that nothing happens can only be waited for
        assert kept.container_ids() == []


async def test_one_that_cannot_be_made_is_tried_again_later_and_told(
    kept: Controllers, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.images = frozenset()
    async with kept.running(pool=True) as manager:
        await until(lambda: manager.pool.infos() != [] and shelf(manager).problem != "")
        assert "is not built" in shelf(manager).problem
        with pytest.raises(InfrastructureError, match="not built"):
            await manager.open(ALICE, policy="kept")
        engine.images = None
        await filled(manager, shelf(manager).target)
        assert shelf(manager).problem == ""


async def test_a_controller_that_was_killed_leaves_them_to_be_removed(
    kept: Controllers,
) -> None:
    async with kept.running(pool=True) as manager:
        await filled(manager, 2)
        session = await manager.open(ALICE, policy="kept")
        spec = kept.engine.containers[session.container_id or ""].spec
        nobodys = spec.model_copy(
            update={"name": "left", "labels": {**spec.labels, LABEL_SANDBOX: "sb-left"}}
        )
        left = await manager.runtime.create(nobodys)
        await manager.runtime.start(left)
        await manager.close(ALICE, session.session_id)
    async with kept.running(pool=True) as manager:
        await manager.ready()
        assert left not in kept.container_ids()


def policy(least: int, most: int) -> Policy:
    return Policy.model_validate({"name": "p", "pool": {"min": least, "max": most}})


def test_demand_raises_how_many_are_wanted_and_is_forgotten() -> None:
    shelf = Shelf(policy(1, 5))
    assert shelf.target(0) == 1
    for _ in range(4):
        shelf.asked(0)
    assert shelf.target(0) == 4
    assert shelf.target(FORGET_HALF_S) == 2
    assert shelf.target(10 * FORGET_HALF_S) == 1
    for _ in range(100):
        shelf.asked(0)
    assert shelf.target(0) == 5


def test_failures_in_a_row_are_followed_by_longer_pauses() -> None:
    shelf = Shelf(policy(1, 1))
    pauses = []
    for _ in range(9):
        shelf.failed("no", 0, 60)
        pauses.append(shelf.again_at)
    assert pauses[:3] == [1, 2, 4]
    assert pauses[-1] == 60
