"""A controller whose machine's clock is turned, while callers work and sessions wait."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest

from ..support import observed
from ..support.counting import counting
from ..support.observedrun import ObservedRun

pytestmark = pytest.mark.anyio

TURNS = 6
BETWEEN_S = 0.4
HOUR_S = 3600.0
YEAR_S = 365 * 24 * HOUR_S
IDLE_S = HOUR_S / 2
"""After which a session of these callers that is not used expires."""
SWEPT_S = 20.0


async def test_a_clock_that_jumps_to_and_fro_costs_nobody_who_works_anything(
    folder: Path, order: random.Random
) -> None:
    """Nor is any wait longer or shorter: cells have time-outs, commands too, the link its pings."""
    async with ObservedRun(folder, kept_ready=1) as run:
        callers = await run.callers_of(3)
        async with counting(*callers):
            for _ in range(TURNS):
                far = order.choice([-10 * YEAR_S, -HOUR_S, HOUR_S, 7 * HOUR_S])
                observed.turn(folder, order.uniform(0.5, 1) * far)
                await anyio.sleep(order.uniform(0, BETWEEN_S))
                slept = await callers[0].shell("sleep 0.2; echo slept")
                assert slept["stdout"] == "slept\n"
            observed.turn(folder, 0)
        await run.check()
        assert len(run.live) == len(callers)
        await run.close()


async def test_a_clock_that_is_turned_on_ends_what_is_over_with_its_reason_and_nothing_else(
    folder: Path, order: random.Random
) -> None:
    async with ObservedRun(folder) as run:
        busy, idle, running = await run.callers_of(3)
        cell = await running.http.post(
            f"{running.url}/executions",
            json={"code": "import time\nwhile not n: time.sleep(0.05)\nprint('over')"},
            params={"wait": 0},
        )
        assert cell.json()["status"] == "running"
        async with counting(busy):
            await anyio.sleep(order.uniform(0, BETWEEN_S))
            observed.turn(folder, IDLE_S + order.uniform(1, IDLE_S))

            async def gone() -> bool:
                listed = (await busy.http.get("/mcp/v1/sessions")).json()["sessions"]
                return idle.session_id not in {each["session_id"] for each in listed}

            with anyio.fail_after(SWEPT_S):
                while not await gone():
                    await anyio.sleep(0.1)
        await idle.count()
        assert "not used" in idle.ended
        stopped = await running.http.post(f"{running.url}/kernels/k-default/interrupt", json={})
        assert stopped.status_code == 200, stopped.text
        await run.check()
        assert run.live == [busy.session_id, running.session_id]
        await run.close()


async def test_a_controller_that_begins_before_its_sessions_did_takes_them_back(
    folder: Path, order: random.Random
) -> None:
    """As on a machine whose clock was not set when it started."""
    async with ObservedRun(folder) as run:
        callers = await run.callers_of(2)
        for caller in callers:
            caller.may_be_cut = True
        run.kill()
        observed.turn(folder, -order.uniform(HOUR_S, 10 * YEAR_S))
        await run.start()
        async with counting(*callers):
            await anyio.sleep(1)
            observed.turn(folder, 0)
            await anyio.sleep(1)
        await run.check()
        assert len(run.live) == len(callers)
        await run.close()
