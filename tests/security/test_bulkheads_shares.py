"""Attacks on what all principals share of the controller: places to open in, calls of the engine.

One principal floods, from real sessions on the real engine; another one works meanwhile.
"""

from __future__ import annotations

import statistics
import time

import anyio
import pytest

from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller

from .conftest import Attacked

pytestmark = pytest.mark.anyio

FLOOD = Caller("flood")
HONEST = Caller("honest")
POLICIES = ("offline", "allowlist", "package-index")
AT_ONCE = 12
TURNS = 5


async def test_opening_and_closing_without_end_makes_only_ones_own_openings_wait(
    manager: SessionManager, neighbour: Attacked
) -> None:
    """Invariant 3: the flood has half the places, and one that is free goes to who has fewest."""
    is_over = False
    times: dict[str, list[float]] = {"flood": [], "honest": []}

    async def once(caller: Caller, policy: str) -> None:
        began = time.monotonic()
        session = await manager.open(caller, policy=policy, reuse=False)
        times[caller.principal].append(time.monotonic() - began)
        await manager.close(caller, session.session_id)

    async def flood(policy: str) -> None:
        while not is_over:
            await once(FLOOD, policy)

    with anyio.fail_after(240):
        async with anyio.create_task_group() as tasks:
            for number in range(AT_ONCE):
                tasks.start_soon(flood, POLICIES[number % len(POLICIES)])
            while len(times["flood"]) < AT_ONCE:
                await anyio.sleep(0.1)
            for _ in range(TURNS):
                await once(HONEST, "offline")
            assert await neighbour.is_alive()
            is_over = True
    median = {who: statistics.median(of[-2 * AT_ONCE :]) for who, of in times.items()}
    assert median["honest"] < 0.75 * median["flood"], times
    assert manager.list(FLOOD) == []
