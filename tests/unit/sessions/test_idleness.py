"""Sessions that are frozen when nothing goes on in them, and go on when somebody comes."""

from __future__ import annotations

import anyio
import pytest

from sandbox.commands.models import CommandRequest
from sandbox.container import freezer
from sandbox.errors import EngineUnavailable
from sandbox.kernels.models import ExecutionStatus
from sandbox.sessions.idleness import AGAIN_S, MAX_CHARS, MAX_TOLD
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session
from sandbox.testing import FakeEngine, FakeRuntime

from ...support.waiting import until
from .controllers import Controllers, run

ADA = Caller("ada")
FREEZE_S = 300
"""The default of policies."""

pytestmark = pytest.mark.anyio


class Recording(FakeRuntime):
    """Counts how often it lets a container go on."""

    unpaused = 0

    async def unpause(self, container_id: str) -> None:
        type(self).unpaused += 1
        await super().unpause(container_id)


@pytest.fixture(autouse=True)
def _recorded(controllers: Controllers) -> None:
    controllers.make_runtime = Recording
    Recording.unpaused = 0


def state(session: Session, engine: FakeEngine) -> str:
    """What the engine says of a session's container."""
    return engine.containers[session.container_id or ""].state


def says(session: Session, engine: FakeEngine, *awake: str) -> None:
    """Have a session's supervisor say that this goes on."""
    supervisor = engine.containers[session.container_id or ""].supervisor
    assert supervisor is not None
    supervisor.awake = list(awake)


async def later(controllers: Controllers, manager: SessionManager, seconds: float) -> None:
    """Let time pass, and do what is due."""
    controllers.ahead_s += seconds
    await manager.sweep()


@pytest.fixture
async def frozen(controllers: Controllers, manager: SessionManager, engine: FakeEngine) -> Session:
    """A session that is frozen."""
    session = await manager.open(ADA)
    await run(session, "x = 1")
    await later(controllers, manager, FREEZE_S)
    assert state(session, engine) == "paused"
    return session


async def test_one_that_nobody_has_used_for_a_while_is_frozen_and_open_all_the_same(
    controllers: Controllers, manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.open(ADA)
    await run(session, "x = 1")
    await later(controllers, manager, FREEZE_S - 1)
    assert (state(session, engine), session.info().frozen_since) == ("running", None)
    before = controllers.ahead_s
    await later(controllers, manager, 1)
    info = session.info()
    assert state(session, engine) == "paused"
    assert (info.state, info.awake_because) == ("open", ())
    assert info.frozen_since is not None
    assert info.frozen_since > info.created_at + before


async def test_its_next_use_lets_it_go_on_with_its_state(
    manager: SessionManager, engine: FakeEngine, frozen: Session
) -> None:
    kernels = frozen.kernels.infos
    result = await run(frozen, "1 + 1")
    assert result.status == "ok"
    assert (state(frozen, engine), frozen.info().frozen_since) == ("running", None)
    assert [each.kernel_id for each in frozen.kernels.infos] == [k.kernel_id for k in kernels]
    assert Recording.unpaused == 1


async def test_whatever_is_sent_lets_it_go_on_first_whoever_sends_it(
    engine: FakeEngine, frozen: Session
) -> None:
    link = frozen.sandbox.link
    assert link is not None
    with anyio.fail_after(5):
        assert (await link.call("info"))["uid"] == frozen.claim.uid
    assert state(frozen, engine) == "running"


async def test_many_who_come_at_once_let_it_go_on_once(engine: FakeEngine, frozen: Session) -> None:
    statuses: list[ExecutionStatus] = []

    async def use() -> None:
        statuses.append((await run(frozen, "1 + 1")).status)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(use)
    assert statuses == ["ok"] * 5
    assert Recording.unpaused == 1


async def test_one_that_somebody_else_has_stopped_goes_on_as_soon_as_it_is_used(
    manager: SessionManager, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freezer, "SILENT_S", 0.1)
    session = await manager.open(ADA)
    await FakeRuntime(engine).pause(session.container_id or "")
    with anyio.fail_after(5):
        assert (await run(session, "1 + 1")).status == "ok"
    assert (state(session, engine), Recording.unpaused) == ("running", 1)


async def test_it_is_frozen_again_when_it_was_not_used_again(
    controllers: Controllers, manager: SessionManager, engine: FakeEngine, frozen: Session
) -> None:
    await run(frozen, "1 + 1")
    await later(controllers, manager, FREEZE_S - 1)
    assert state(frozen, engine) == "running"
    await later(controllers, manager, 1)
    assert state(frozen, engine) == "paused"


async def test_to_look_at_it_lets_nothing_go_on(
    manager: SessionManager, engine: FakeEngine, frozen: Session
) -> None:
    session = await manager.get(ADA, frozen.session_id)
    assert session.info().frozen_since is not None
    assert [info.frozen_since is not None for info in manager.list(ADA)] == [True]
    assert state(frozen, engine) == "paused"


async def test_one_that_is_in_use_is_not_frozen(
    controllers: Controllers, manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.open(ADA)
    async with session.use():
        await later(controllers, manager, FREEZE_S)
        assert state(session, engine) == "running"
    await later(controllers, manager, FREEZE_S)
    assert state(session, engine) == "paused"


async def test_one_whose_cell_or_command_runs_is_not_frozen(
    controllers: Controllers, manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.open(ADA)
    async with session.use():
        execution = await session.kernels.execute("sleep(1000)", timeout_s=290)
    await later(controllers, manager, FREEZE_S)
    assert state(session, engine) == "running"
    await session.kernels.interrupt()
    await execution.wait(5)
    async with session.use():
        command = session.commands.start(CommandRequest(command="sleep 60"))
    await later(controllers, manager, FREEZE_S)
    assert state(session, engine) == "running"
    await session.commands.stop(command)


async def test_what_would_go_on_by_itself_keeps_it_awake_and_is_told(
    controllers: Controllers, manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.open(ADA)
    await run(session, "x = 1")
    says(session, engine, "'sleep 500' (pid 7) waits for a time")
    await later(controllers, manager, FREEZE_S)
    assert state(session, engine) == "running"
    assert session.info().awake_because == ("'sleep 500' (pid 7) waits for a time",)
    says(session, engine)
    await later(controllers, manager, AGAIN_S - 1)  # nobody asks all the time
    assert state(session, engine) == "running"
    await later(controllers, manager, 1)
    assert state(session, engine) == "paused"
    assert session.info().awake_because == ()


async def test_what_kept_it_awake_is_no_longer_told_once_it_was_used(
    controllers: Controllers, manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.open(ADA)
    says(session, engine, "something")
    await later(controllers, manager, FREEZE_S)
    assert session.info().awake_because
    controllers.ahead_s += 1
    await run(session, "x = 1")
    assert session.info().awake_because == ()


async def test_what_the_supervisor_says_of_it_is_bounded(
    controllers: Controllers, manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.open(ADA)
    says(session, engine, *["\x1b[31mx" * 100] * 60)
    await later(controllers, manager, FREEZE_S)
    told = session.info().awake_because
    assert len(told) == MAX_TOLD
    assert all(len(each) <= MAX_CHARS and each.isprintable() for each in told)
    says(session, engine, *["x"] * 10_000)
    await later(controllers, manager, AGAIN_S)
    assert ["could not be frozen" in each for each in session.info().awake_because] == [True]
    assert state(session, engine) == "running"


async def test_an_engine_that_cannot_stop_it_costs_nothing(
    controllers: Controllers, manager: SessionManager, engine: FakeEngine
) -> None:
    engine.can_pause = False
    session = await manager.open(ADA)
    await later(controllers, manager, FREEZE_S)
    info = session.info()
    assert (state(session, engine), info.frozen_since) == ("running", None)
    assert ["could not be frozen" in each for each in info.awake_because] == [True]
    assert (await run(session, "1 + 1")).status == "ok"


async def test_who_comes_while_the_engine_is_down_is_told_and_it_goes_on_afterwards(
    engine: FakeEngine, frozen: Session
) -> None:
    engine.is_down = True
    with pytest.raises(EngineUnavailable):
        async with frozen.use():
            pass
    engine.is_down = False
    assert (await run(frozen, "1 + 1")).status == "ok"
    assert state(frozen, engine) == "running"


async def test_a_lost_link_of_a_frozen_one_is_made_again(
    engine: FakeEngine, frozen: Session
) -> None:
    engine.cut_links()
    await until(lambda: state(frozen, engine) == "running", 5)
    assert (await run(frozen, "1 + 1")).status == "ok"


async def test_a_link_is_made_again_to_one_that_somebody_else_has_paused(
    manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.open(ADA)
    await manager.runtime.pause(session.container_id or "")
    engine.cut_links()
    assert (await run(session, "1 + 1")).status == "ok"


async def test_a_frozen_one_is_closed_and_expires_without_going_on(
    controllers: Controllers, manager: SessionManager, engine: FakeEngine, frozen: Session
) -> None:
    await later(controllers, manager, 1800)
    assert frozen.state == "expired"
    assert frozen.container_id not in engine.containers
    other = await manager.open(ADA)
    await later(controllers, manager, FREEZE_S)
    assert state(other, engine) == "paused"
    await manager.close(ADA, other.session_id)
    assert controllers.container_ids() == []
    assert Recording.unpaused == 0


async def test_a_frozen_one_that_is_killed_is_lost_with_its_cause(
    manager: SessionManager, engine: FakeEngine, frozen: Session
) -> None:
    await engine.kill(frozen.container_id or "", oom=True)
    await until(lambda: frozen.state == "lost", 10)
    assert "memory" in manager.ownership.ended(ADA, frozen.session_id).reason


async def test_a_frozen_one_is_no_orphan_and_not_gone(
    manager: SessionManager, engine: FakeEngine, frozen: Session
) -> None:
    await manager.sweep()
    assert (frozen.state, state(frozen, engine)) == ("open", "paused")


@pytest.mark.parametrize("is_noted", [True, False])
async def test_a_later_controller_lets_what_it_takes_over_go_on(
    controllers: Controllers, engine: FakeEngine, is_noted: bool
) -> None:
    async with controllers.running(keep=True) as manager:
        session = await manager.open(ADA, name="kept")
        await run(session, "x = 1")
        if is_noted:
            await later(controllers, manager, FREEZE_S)
        else:  # as by one that has died between the two
            await manager.runtime.pause(session.container_id or "")
        assert state(session, engine) == "paused"
    async with controllers.running() as manager:
        again = await manager.get(ADA, session.session_id)
        assert (await run(again, "1 + 1")).status == "ok"
        assert (again.container_id, state(again, engine)) == (session.container_id, "running")


async def test_a_policy_may_say_never(controllers: Controllers, engine: FakeEngine) -> None:
    (controllers.policies / "awake.yaml").write_text("version: 1\nlimits: {freeze: 0s}\n")
    async with controllers.running() as manager:
        session = await manager.open(ADA, policy="awake")
        await later(controllers, manager, 1200)
        assert state(session, engine) == "running"


async def test_gvisors_are_not_frozen(controllers: Controllers) -> None:
    controllers.engine = engine = FakeEngine(runtimes=("runsc",))
    async with controllers.running(runtime="runsc") as manager:
        session = await manager.open(ADA)
        await later(controllers, manager, FREEZE_S)
        assert state(session, engine) == "running"
