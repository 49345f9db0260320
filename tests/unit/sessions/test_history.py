"""What ran is listed: newest first, bounded, over restarts and ends, and each caller's own only."""

from __future__ import annotations

import pytest

from sandbox.errors import NotFound
from sandbox.outputs.redaction import Redactor
from sandbox.policy import Policy
from sandbox.sessions.history import MAX_CODE, MAX_EXECUTIONS
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller, ExecutionSummary

from ...support.waiting import until
from .controllers import Controllers, run

pytestmark = pytest.mark.anyio

ALICE, BOB = Caller("alice"), Caller("bob")


def every(_policy: Policy) -> bool:
    return True


async def listed(
    manager: SessionManager, caller: Caller = ALICE, session_id: str = ""
) -> list[ExecutionSummary]:
    await manager.ready()
    return await manager.history.executions(caller, session_id, every)


async def test_what_ran_is_listed_newest_first_with_how_it_ended(
    manager: SessionManager, controllers: Controllers
) -> None:
    assert await listed(manager) == []
    session = await manager.get(ALICE)
    first = await run(session, "\n\nx = 1\ny = 2")
    second = await run(session, "raise ValueError('no')")
    other = await manager.open(ALICE, policy="tight")
    third = await run(other, "print(1)")
    controllers.ahead_s = 60
    found = await listed(manager)
    assert [each.execution_id for each in found] == [
        each.execution_id for each in (third, second, first)
    ]
    assert [each.status for each in found] == ["ok", "error", "ok"]
    assert [each.code for each in found] == ["print(1)", "raise ValueError('no')", "x = 1"]
    assert all(60 <= each.age_s < 70 and each.state == "kept" for each in found)
    assert found[0].kernel_id == third.kernel_id
    only = await listed(manager, session_id=other.session_id)
    assert [each.execution_id for each in only] == [third.execution_id]


async def test_what_runs_is_listed_as_running(manager: SessionManager) -> None:
    session = await manager.get(ALICE)
    async with session.use():
        execution = await session.kernels.execute("sleep(60)")
        waiting = await session.kernels.execute("print(1)")
        await until(lambda: execution.record.state == "running")
        behind, running = await listed(manager)
        assert (running.execution_id, running.status) == (execution.execution_id, "running")
        assert (behind.execution_id, behind.duration_s) == (waiting.execution_id, 0)
        await waiting.cancel()
        await execution.cancel()


async def test_what_ran_before_a_restart_is_listed_and_what_still_runs(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        ended = await run(session, "x = 1")
        async with session.use():
            execution = await session.kernels.execute("sleep(60)")
            await until(lambda: execution.record.state == "running")
    async with controllers.running() as second:
        running, before = await listed(second)
        assert (running.execution_id, running.status) == (execution.execution_id, "running")
        assert (before.execution_id, before.status) == (ended.execution_id, "ok")
        await second.close(ALICE)
        lost, before = await listed(second, session_id=session.session_id)
        assert (lost.execution_id, lost.status, lost.state) == (
            execution.execution_id,
            "lost",
            "lost",
        )
        assert before.status == "ok"


async def test_nobody_is_shown_what_is_not_theirs(manager: SessionManager) -> None:
    session = await manager.get(ALICE)
    await run(session, "x = 1")
    assert await listed(manager, BOB) == []
    assert await listed(manager, Caller("alice", policies=("tight",))) == []
    for caller in (BOB, Caller("alice", policies=("tight",))):
        with pytest.raises(NotFound):
            await listed(manager, caller, session.session_id)


async def test_sessions_whose_policy_does_not_allow_it_are_left_out(
    manager: SessionManager,
) -> None:
    await run(await manager.get(ALICE), "x = 1")
    await run(await manager.open(ALICE, policy="tight"), "y = 1")
    found = await manager.history.executions(ALICE, "", lambda policy: policy.name == "tight")
    assert [each.code for each in found] == ["y = 1"]


async def test_the_list_and_its_lines_are_bounded(manager: SessionManager) -> None:
    session = await manager.get(ALICE)
    for number in range(MAX_EXECUTIONS + 2):
        await run(session, f"x = {number}  # {'é' * 500}")
    found = await listed(manager)
    assert len(found) == MAX_EXECUTIONS
    assert found[0].code.startswith(f"x = {MAX_EXECUTIONS + 1} ")
    assert all(len(each.code) == MAX_CODE + 1 for each in found)


async def test_no_part_of_a_secret_is_left_where_a_line_is_cut(manager: SessionManager) -> None:
    session = await manager.get(ALICE)
    session.redactor = Redactor({"key": "a-secret-value"})
    await run(session, f"{'x' * (MAX_CODE - 6)}a-secret-value")
    (found,) = await listed(manager)
    assert "a-sec" not in found.code
    assert found.code.startswith("x" * (MAX_CODE - 6) + "[secr")
