from __future__ import annotations

import anyio
import pytest

from sandbox.broker.pace import Pace

pytestmark = pytest.mark.anyio


@pytest.mark.timed
async def test_a_burst_passes_at_once_and_what_follows_waits_its_turn() -> None:
    pace = Pace(per_s=20, burst=4)
    began = anyio.current_time()
    for _ in range(4):
        await pace.turn()
    assert anyio.current_time() - began < 0.05
    for _ in range(6):
        await pace.turn()
    assert anyio.current_time() - began >= 0.25


async def test_those_who_wait_at_once_are_let_through_one_after_the_other() -> None:
    pace = Pace(per_s=20, burst=1)
    passed: list[float] = []

    async def go() -> None:
        await pace.turn()
        passed.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(go)
    assert passed[-1] - passed[0] >= 0.15
