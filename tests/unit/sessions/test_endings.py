"""How sessions end: closed, expired, lost; and what their callers hear of it."""

from __future__ import annotations

import anyio
import pytest

from sandbox.errors import InfrastructureError, LinkLost, NotFound, SessionLost
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.runtimes.base import ContainerInfo
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session
from sandbox.testing import FakeEngine

from ...support.waiting import until
from .controllers import Controllers, run

ALICE = Caller("alice")
MALLORY = Caller("mallory")

pytestmark = pytest.mark.anyio


async def start(session: Session, code: str) -> Execution:
    """Start a cell that lasts, and see it begin."""
    async with session.use():
        execution = await session.kernels.execute(f"print('begun')\n{code}")
    await until(lambda: execution.snapshot().outputs)
    return execution


async def noticed(session: Session) -> None:
    """Wait until the session knows that its link is down."""
    await until(lambda: not session.sandbox.is_up)


async def ended(execution: Execution) -> ExecutionResult:
    with anyio.fail_after(10):
        return await execution.wait(None)


async def test_closing_removes_the_container_and_ends_what_ran_as_lost(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.open(ALICE)
    execution = await start(session, "sleep(60)")
    info = await manager.close(ALICE, session.session_id)
    assert info.state == "closed"
    assert controllers.container_ids() == []
    result = await ended(execution)
    assert (result.status, result.state) == ("lost", "lost")
    assert "closed" in (result.reason or "")
    assert manager.list(ALICE) == []


async def test_closing_twice_answers_the_same(manager: SessionManager) -> None:
    session = await manager.open(ALICE)
    first = await manager.close(ALICE, session.session_id)
    again = await manager.close(ALICE, session.session_id)
    assert (first.state, again.state) == ("closed", "closed")
    assert again.session_id == session.session_id


async def test_closing_at_once_from_two_sides_is_one_close(manager: SessionManager) -> None:
    session = await manager.open(ALICE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(manager.close, ALICE, session.session_id)
        tasks.start_soon(manager.close, ALICE)
    assert manager.list(ALICE) == []


async def test_there_is_no_default_session_to_close_before_one_was_opened(
    manager: SessionManager,
) -> None:
    with pytest.raises(NotFound):
        await manager.close(ALICE)


async def test_a_closed_session_cannot_be_used_and_a_new_default_is_opened_without_ado(
    manager: SessionManager,
) -> None:
    session = await manager.get(ALICE)
    await manager.close(ALICE)
    with pytest.raises(SessionLost, match="closed"):
        await manager.get(ALICE, session.session_id)
    with pytest.raises(SessionLost):
        await run(session, "print(1)")
    assert await manager.get(ALICE) is not session


async def test_a_result_is_found_by_its_id_after_the_close_and_only_by_its_principal(
    manager: SessionManager,
) -> None:
    session = await manager.open(ALICE)
    result = await run(session, "print(42)")
    await manager.close(ALICE)
    found = await manager.execution(ALICE, result.execution_id)
    assert isinstance(found, ExecutionResult)
    assert found.outputs == result.outputs
    texts: set[str] = set()
    for execution_id in (result.execution_id, "0" * 32):
        with pytest.raises(NotFound) as caught:
            await manager.execution(MALLORY, execution_id)
        texts.add(str(caught.value).replace(execution_id, "ID"))
    assert len(texts) == 1


async def test_a_running_execution_is_found_by_its_id(manager: SessionManager) -> None:
    session = await manager.open(ALICE)
    execution = await start(session, "sleep(60)")
    assert await manager.execution(ALICE, execution.execution_id) is execution
    with pytest.raises(NotFound):
        await manager.execution(MALLORY, execution.execution_id)


async def test_a_session_that_is_not_used_expires(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.get(ALICE)
    controllers.ahead_s = session.policy.limits.idle_s - 5
    await manager.sweep()
    assert session.is_usable
    controllers.ahead_s += 10
    await manager.sweep()
    assert controllers.container_ids() == []
    with pytest.raises(SessionLost, match="not used"):
        await manager.get(ALICE, session.session_id)


async def test_a_lease_and_a_running_cell_keep_a_session_from_idling_out(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.get(ALICE)
    async with session.use():
        controllers.ahead_s += session.policy.limits.idle_s + 5
        await manager.sweep()
        assert session.is_usable
    execution = await start(session, "sleep(60)")
    controllers.ahead_s += session.policy.limits.idle_s + 5
    await manager.sweep()
    assert session.is_usable
    await execution.cancel()
    await ended(execution)
    controllers.ahead_s += session.policy.limits.idle_s + 5
    await manager.sweep()
    assert not session.is_usable


async def test_the_lifetime_ends_a_session_even_while_it_is_used(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.get(ALICE)
    execution = await start(session, "sleep(60)")
    controllers.ahead_s += session.policy.limits.lifetime_s + 1
    await manager.sweep()
    result = await ended(execution)
    assert result.status == "lost"
    assert "lifetime" in (result.reason or "")


async def test_an_expired_default_session_is_said_once_and_then_replaced(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.get(ALICE)
    controllers.ahead_s += session.policy.limits.idle_s + 1
    await manager.sweep()
    with pytest.raises(SessionLost, match="expired") as caught:
        await manager.get(ALICE)
    assert "next call" in caught.value.remedy
    assert await manager.get(ALICE) is not session


@pytest.mark.parametrize(("oom", "cause"), [(False, "exit code 137"), (True, "memory")])
async def test_a_container_that_ends_by_itself_loses_its_session_with_the_cause(
    manager: SessionManager, engine: FakeEngine, oom: bool, cause: str
) -> None:
    session = await manager.get(ALICE)
    execution = await start(session, "sleep(60)")
    await engine.kill(session.container_id or "", oom=oom)
    result = await ended(execution)
    assert (result.status, result.state) == ("lost", "lost")
    assert cause in (result.reason or "")
    await until(lambda: not engine.containers)
    with pytest.raises(SessionLost, match=cause):
        await manager.get(ALICE)
    assert await manager.get(ALICE) is not session
    with pytest.raises(SessionLost, match=cause):
        await manager.get(ALICE, session.session_id)


async def test_a_container_that_the_engine_is_just_ending_is_lost_with_the_cause(
    manager: SessionManager, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await manager.get(ALICE)
    inspect = manager.runtime.inspect
    before = await inspect(session.container_id or "")
    asked = 0

    async def late(container_id: str) -> ContainerInfo:
        nonlocal asked
        asked += 1
        return before if asked < 3 else await inspect(container_id)

    monkeypatch.setattr(manager.runtime, "inspect", late)
    await engine.kill(session.container_id or "")
    await until(lambda: session.is_ending)
    with pytest.raises(SessionLost, match="exit code 137"):
        await manager.get(ALICE, session.session_id)
    assert asked == 3


async def test_a_container_removed_from_outside_loses_its_session(
    manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.get(ALICE)
    container = engine.containers.pop(session.container_id or "")
    await container.stop(137)
    await until(lambda: not manager.list(ALICE))
    with pytest.raises(SessionLost, match="removed"):
        await manager.get(ALICE)


async def test_a_lost_session_says_from_its_first_moment_on_what_its_workspace_keeps(
    manager: SessionManager,
) -> None:
    session = await manager.open(ALICE, workspace="w")
    session.begin_end("lost", "its container was removed from outside")
    with pytest.raises(SessionLost, match="outside; nothing of its workspace 'w' is kept"):
        await manager.get(ALICE, session.session_id)
    await session.wait_over()
    with pytest.raises(SessionLost, match="outside; nothing of its workspace 'w' is kept"):
        await manager.get(ALICE, session.session_id)


async def test_the_sweeper_notices_a_container_that_is_gone_while_its_link_is_up(
    manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.get(ALICE)
    container = engine.containers.pop(session.container_id or "")
    await manager.sweep()
    await until(lambda: not manager.list(ALICE))
    await container.stop(137)
    with pytest.raises(SessionLost, match="removed"):
        await manager.get(ALICE)


async def test_the_sweeper_says_how_a_container_has_ended(
    manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.get(ALICE)
    container = engine.containers[session.container_id or ""]
    container.state, container.exit_code = "exited", 137
    await manager.sweep()
    await until(lambda: not manager.list(ALICE))
    await container.stop(137)
    with pytest.raises(SessionLost, match="exit code 137"):
        await manager.get(ALICE)


async def test_a_call_that_the_loss_interrupts_says_that_the_session_is_lost(
    manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.get(ALICE)

    async def call() -> None:
        async with session.use():
            await engine.kill(session.container_id or "")
            await session.files.stat(".")

    with pytest.raises(SessionLost):
        await call()


async def test_a_lost_link_is_made_again_and_what_runs_goes_on(
    manager: SessionManager, engine: FakeEngine
) -> None:
    session = await manager.get(ALICE)
    assert (await run(session, "x = 7")).status == "ok"
    execution = await start(session, "sleep(0.3)\nprint(x)")
    engine.cut_links()
    result = await ended(execution)
    assert result.status == "ok"
    assert result.outputs[0]["text"] == "begun\n7\n"
    engine.cut_links()
    await noticed(session)
    assert (await run(session, "print(x)")).outputs[0]["text"] == "7\n"


async def test_an_engine_that_is_away_for_a_while_costs_no_session(
    manager: SessionManager, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.sessions.session.RECONNECT_WAIT_S", 0.2)
    session = await manager.get(ALICE)
    assert (await run(session, "x = 7")).status == "ok"
    engine.is_down = True
    engine.cut_links()
    await noticed(session)
    with pytest.raises(LinkLost):
        await run(session, "print(x)")
    engine.is_down = False
    monkeypatch.setattr("sandbox.sessions.session.RECONNECT_WAIT_S", 10)
    assert (await run(session, "print(x)")).outputs[0]["text"] == "7\n"


async def test_a_container_that_could_not_be_removed_is_removed_when_the_engine_is_back(
    manager: SessionManager, engine: FakeEngine, controllers: Controllers
) -> None:
    session = await manager.get(ALICE)
    engine.is_down = True
    await manager.close(ALICE)
    assert controllers.container_ids() == [session.container_id]
    engine.is_down = False
    await manager.sweep()
    assert controllers.container_ids() == []


async def test_a_container_of_ours_that_is_no_session_is_removed_and_others_are_left(
    manager: SessionManager, engine: FakeEngine, controllers: Controllers
) -> None:
    session = await manager.get(ALICE)
    spec = engine.containers[session.container_id or ""].spec
    orphan = spec.model_copy(
        update={"name": "orphan", "labels": {**spec.labels, "io.sandbox.sandbox": "sb-orphan"}}
    )
    foreign = spec.model_copy(
        update={"name": "foreign", "labels": {**spec.labels, "io.sandbox.owner": "f" * 32}}
    )
    await manager.runtime.create(orphan)
    foreign_id = await manager.runtime.create(foreign)
    await manager.sweep()
    assert controllers.container_ids() == [session.container_id, foreign_id]
    await manager.runtime.remove(foreign_id)


async def test_leaving_the_controller_closes_its_sessions(controllers: Controllers) -> None:
    async with controllers.running(keep=False) as manager:
        session = await manager.open(ALICE)
        execution = await start(session, "sleep(60)")
    assert controllers.container_ids() == []
    assert (await ended(execution)).status == "lost"


async def test_a_cancelled_controller_that_keeps_nothing_leaves_nothing(
    controllers: Controllers,
) -> None:
    async with anyio.create_task_group() as tasks, controllers.running(keep=False) as manager:
        await manager.open(ALICE)
        tasks.cancel_scope.cancel()
        await anyio.sleep(1)
    assert controllers.container_ids() == []


async def open_until_refused(manager: SessionManager) -> None:
    """Open sessions until not one more row fits into the journal."""
    for number in range(100):
        await manager.open(Caller(f"bob-{number}"), name="x" * 60)


async def test_with_the_controllers_disk_full_a_cell_is_refused_clearly_and_the_session_goes_on(
    manager: SessionManager,
) -> None:
    session = await manager.get(ALICE)
    assert (await run(session, "x = 7")).status == "ok"
    database = manager._services.journal._db
    pages = database.read("PRAGMA page_count")[0][0]
    database.write(f"PRAGMA max_page_count = {pages}")
    with anyio.fail_after(10):
        async with session.use():
            execution = await session.kernels.execute("#" + "x" * 500_000)
        result = await execution.wait(None)
    assert result.status == "lost"
    assert "journal" in (result.reason or "")
    with pytest.raises(InfrastructureError, match="journal"):
        await open_until_refused(manager)
    database.write("PRAGMA max_page_count = 1000000")
    assert (await run(session, "print(x)")).outputs[0]["text"] == "7\n"
