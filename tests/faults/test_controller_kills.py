"""A controller that is killed under load, with sandboxes ready and being made, time after time."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import httpx2
import pytest

from scripts.kills import kills

from ..support.counting import counting
from ..support.observedrun import POLICY, ObservedRun

pytestmark = pytest.mark.anyio

KILLS = 3
LATEST_S = 1.5
LATEST_START_S = 0.5


async def test_callers_who_count_go_on_where_they_were_however_often_it_is_killed(
    folder: Path, order: random.Random
) -> None:
    """With a pool, whose sandboxes are nobody's: the next controller removes them and makes its
    own."""
    async with ObservedRun(folder, kept_ready=2) as run:
        callers = await run.callers_of(4)
        for caller in callers:
            caller.may_be_cut = True
        async with counting(*callers), anyio.create_task_group() as tasks:
            for _ in range(KILLS):
                tasks.start_soon(open_and_close, run)
                await anyio.sleep(order.uniform(0, LATEST_S))
                run.kill()
                await anyio.sleep(order.uniform(0, LATEST_START_S))
                await run.start()
        await run.close_unheard()
        await run.check()
        assert len(run.live) == len(callers)
        await run.close()


async def open_and_close(run: ObservedRun) -> None:
    """Claim what is ready, which others follow, until the controller is killed."""
    served = run.served
    try:
        async with served.http() as http:
            while True:
                answer = await http.post("/mcp/v1/sessions", json={"reuse": False})
                assert answer.status_code == 201, answer.text
                assert answer.json()["policy"] == POLICY
                url = f"/mcp/v1/sessions/{answer.json()['session_id']}"
                assert (await http.delete(url)).json()["state"] == "closed"
    except httpx2.TransportError:
        assert served.process.poll() is not None


async def test_what_callers_have_heard_of_is_there_again_after_each_kill(
    tmp_path: Path, order: random.Random
) -> None:
    """``make kills`` is the long one."""
    report = await kills(tmp_path, KILLS, order)
    print(report.line())
    assert report.faults == []
