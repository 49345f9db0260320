"""Quotas of principals: exact under calls that come at once, kept over restarts, free in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox.config import Settings
from sandbox.errors import QuotaExceeded, SandboxError
from sandbox.sessions.models import Caller
from sandbox.sessions.quotas import Quotas
from sandbox.sessions.usage import Usage

from ...support.clock import Clock
from .controllers import Controllers, run

pytestmark = pytest.mark.anyio

ALICE, BOB = Caller("alice"), Caller("bob")
NOON = 20_000 * 86_400 + 43_200.0


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def quotas(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Quotas]]:
    opened: list[Usage] = []

    def make(**settings: Any) -> Quotas:
        for ledger in opened:
            ledger.close()
        opened.append(Usage(tmp_path / "usage.db", clock))
        return Quotas(Settings(state_dir=tmp_path, **settings), opened[-1], clock)

    yield make
    for ledger in opened:
        ledger.close()


def admitted(action: Callable[[], None], times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            action()
        except QuotaExceeded:
            continue
        count += 1
    return count


def test_executions_are_counted_over_a_sliding_minute(
    quotas: Callable[..., Quotas], clock: Clock
) -> None:
    held = quotas(executions_per_minute=10)
    for second in range(10):
        clock.now = NOON + second
        held.admit_execution("alice")
    clock.now = NOON + 59.9
    with pytest.raises(QuotaExceeded) as refused:
        held.admit_execution("alice")
    assert refused.value.remedy == "Try again in 0.1 s."
    held.admit_execution("bob")
    clock.now = NOON + 60
    assert admitted(lambda: held.admit_execution("alice"), 5) == 1
    clock.now = NOON + 62
    assert admitted(lambda: held.admit_execution("alice"), 5) == 2


def test_processor_time_is_counted_once_and_over_restarts_and_is_back_the_next_day(
    quotas: Callable[..., Quotas], clock: Clock
) -> None:
    held = quotas(cpu_seconds_per_day=100)
    held.usage.note_cpu("alice", "s1", 60)
    held.usage.note_cpu("alice", "s1", 60)
    held.usage.note_cpu("alice", "s2", 39)
    held.admit_work("alice")
    held = quotas(cpu_seconds_per_day=100)
    held.usage.note_cpu("alice", "s1", 60.5)
    held.admit_work("alice")
    held.usage.note_cpu("alice", "s1", 61)
    with pytest.raises(QuotaExceeded) as refused:
        held.admit_execution("alice")
    assert "00:00 UTC, in 12h" in refused.value.remedy
    held.admit_execution("bob")
    clock.now += 43_200
    held.admit_execution("alice")
    held.usage.note_cpu("alice", "s1", 160)
    held.admit_execution("alice")
    held.usage.note_cpu("alice", "s1", 161)
    with pytest.raises(QuotaExceeded):
        held.admit_execution("alice")


def test_bytes_pass_up_to_the_quota_and_not_one_more(
    quotas: Callable[..., Quotas], clock: Clock
) -> None:
    held = quotas(egress_bytes_per_day=1000)
    passed = sum(not held.charge_egress("alice", 7) for _ in range(500))
    assert passed == 1000 // 7
    assert held.charge_egress("alice", 1000 - 7 * passed) == ""
    assert "00:00 UTC" in held.charge_egress("alice", 1)
    assert held.charge_egress("bob", 1000) == ""
    held = quotas(egress_bytes_per_day=1000)
    assert held.charge_egress("alice", 1)
    clock.now += 43_200
    assert held.charge_egress("alice", 1000) == ""


def test_zero_is_no_quota(quotas: Callable[..., Quotas]) -> None:
    held = quotas()
    held.usage.note_cpu("alice", "s1", 1e9)
    assert admitted(lambda: held.admit_execution("alice"), 1000) == 1000
    assert held.charge_egress("alice", 10**15) == ""
    held.admit_session("alice", 10**6, "")


async def test_of_a_hundred_cells_and_commands_at_once_as_many_run_as_may(
    controllers: Controllers,
) -> None:
    ended: list[str] = []
    async with controllers.running(executions_per_minute=12) as manager:
        session = await manager.open(ALICE)

        async def cell() -> None:
            try:
                await run(session, "1+1")
                ended.append("ran")
            except QuotaExceeded as exc:
                ended.append(exc.code)

        async def command() -> None:
            try:
                async with session.use():
                    await session.commands.run("true")
                ended.append("ran")
            except QuotaExceeded as exc:
                # As many may also run at once as the policy says.
                ended.append("at once" if "policy" in exc.message else exc.code)

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(cell if number % 10 else command)
        with pytest.raises(QuotaExceeded):
            await run(session, "1+1")
        await run(await manager.open(BOB), "1+1")
    assert ended.count("ran") == 12
    assert len(ended) == 100


async def test_opens_at_once_under_all_policies_meet_the_principals_quota(
    controllers: Controllers,
) -> None:
    opened: list[str] = []
    async with controllers.running(max_sessions_per_principal=3) as manager:

        async def open_one(policy: str) -> None:
            try:
                session = await manager.open(ALICE, policy=policy, reuse=False)
            except QuotaExceeded:
                return
            opened.append(session.session_id)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(open_one, "offline" if number % 2 else "tight")
        assert len(opened) == len(manager.list(ALICE)) == 3
        await manager.open(BOB)


async def test_a_quotas_error_names_what_is_open_and_how_to_go_on(
    controllers: Controllers,
) -> None:
    async with controllers.running(max_sessions_per_principal=3) as manager:
        mine = await manager.get(ALICE)
        two = [await manager.open(ALICE, policy="tight", name=f"n{n}") for n in range(2)]
        await manager.open(BOB)
        controllers.ahead_s = 125
        with pytest.raises(QuotaExceeded) as caught:
            await manager.open(ALICE, reuse=False)
        told = caught.value.message
        assert f"{mine.session_id} (policy offline, the default one of this conversation" in told
        assert all(f"{each.session_id} (policy tight, named 'n" in told for each in two)
        assert "opened 2m" in told
        assert "last used 2m" in told
        assert "session_id" in caught.value.remedy
        assert "close_session" in caught.value.remedy
        narrow = Caller("alice", "other", policies=("tight",))
        with pytest.raises(QuotaExceeded) as caught:
            await manager.open(narrow, reuse=False)
        assert mine.session_id not in caught.value.message, "it may not see that one"
        assert "1 more" in caught.value.message


async def test_a_policys_quota_names_its_sessions(controllers: Controllers) -> None:
    async with controllers.running() as manager:
        mine = await manager.get(ALICE)
        two = [await manager.open(ALICE, policy="tight", reuse=False) for _ in range(2)]
        with pytest.raises(QuotaExceeded) as caught:
            await manager.open(ALICE, policy="tight", reuse=False)
        assert all(each.session_id in caught.value.message for each in two)
        assert mine.session_id not in caught.value.message


async def test_without_processor_time_nothing_new_runs_and_what_there_is_stays(
    controllers: Controllers,
) -> None:
    async with controllers.running(cpu_seconds_per_day=1) as manager:
        session = await manager.open(ALICE)
        await run(session, "x = 6")
        terminal = await session.terminals.open()
        with anyio.fail_after(20):
            while True:  # the fake engine's processors are always busy
                await manager.sweep()
                try:
                    await run(session, "1+1")
                except QuotaExceeded as exc:
                    told = exc.message
                    break
                await anyio.sleep(0.05)
        assert "variables and files are kept" in told
        for refused in (
            session.commands.run("true"),
            session.terminals.open(),
            session.terminals.write(terminal.terminal_id, "ls"),
            manager.open(ALICE, reuse=False),
        ):
            with pytest.raises(QuotaExceeded):
                await refused
        await session.terminals.write(terminal.terminal_id, keys=["ctrl-c"])
        assert session.is_usable
        assert await manager.get(ALICE) is session


async def test_the_last_seconds_of_a_session_are_counted_too(controllers: Controllers) -> None:
    async with controllers.running(cpu_seconds_per_day=1) as manager:
        session = await manager.open(ALICE)
        await anyio.sleep(1.1)  # the fake engine's processors are always busy
        await manager.close(ALICE, session.session_id)
    async with controllers.running(cpu_seconds_per_day=1) as manager:
        with pytest.raises(SandboxError, match="processor time"):
            await manager.open(ALICE)
