"""Containers that are killed, removed, paused and cut off, at random moments and all at once."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from ..support.counting import counting
from ..support.killing import COSTS_NOTHING, COSTS_THE_SESSION, Fault
from ..support.observedrun import ObservedRun

pytestmark = pytest.mark.anyio

ROUNDS = 2
LATEST_S = 1.0
AFTER_S = 0.5


async def test_what_ends_a_container_is_told_to_its_callers_and_what_does_not_costs_nothing(
    folder: Path, order: random.Random
) -> None:
    async with ObservedRun(folder) as run:
        for _ in range(ROUNDS):
            await one_round(run, order)


async def one_round(run: ObservedRun, order: random.Random) -> None:
    faults: list[Fault] = [*COSTS_THE_SESSION, *COSTS_NOTHING]
    order.shuffle(faults)
    callers = await run.callers_of(len(faults))
    suffered = dict(zip(callers, faults, strict=True))

    async def happen(fault: Fault, session_id: str, after_s: float) -> None:
        await anyio.sleep(after_s)
        await anyio.to_thread.run_sync(do, fault, session_id)

    def do(fault: Fault, session_id: str) -> None:
        with closing(run.aftermath.client()) as engine:
            fault(engine, run.aftermath.container_of(session_id))

    async with counting(*callers):
        async with anyio.create_task_group() as tasks:
            for caller, fault in suffered.items():
                tasks.start_soon(happen, fault, caller.session_id, order.uniform(0, LATEST_S))
        await anyio.sleep(AFTER_S)
    await run.check()
    for caller, fault in suffered.items():
        assert not caller.deaths, (fault.__name__, caller.deaths)
        if fault in COSTS_THE_SESSION:
            words = COSTS_THE_SESSION[fault]
            assert any(word in caller.ended for word in words), (fault.__name__, caller.ended)
        else:
            assert not caller.ended, (fault.__name__, caller.ended)
    await run.close()
