"""Kernels that die in every way, in sessions side by side, while their callers and others work."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import anyio
import pytest

from ..support.counting import CountingCaller, counting
from ..support.observedrun import ObservedRun

pytestmark = pytest.mark.anyio

ROUNDS = 2
LATEST_S = 1.0
IN_A_THREAD = """
import ctypes, os, threading, time
def end():
    time.sleep({after_s})
    {how}
threading.Thread(target=end).start()
"""
HOG = "held = b'x' * (2 << 30)"
WAYS = {
    "SIGKILL": "ended by SIGKILL",
    "os._exit(7)": "code 7",
    "ctypes.string_at(0)": "SIGSEGV",
    HOG: "memory",
}
"""How a kernel ends, and what its caller is told of it."""


async def arm(caller: CountingCaller, way: str, after_s: float) -> None:
    """Have a caller's kernel die soon, beside whatever it does then."""
    told: dict[str, Any]
    if way == "SIGKILL":
        pid = (await caller.run("import os; print(os.getpid())"))["text"]
        told = await caller.shell(f"(sleep {after_s}; kill -9 {pid}) >/dev/null 2>&1 &")
    else:
        told = await caller.run(IN_A_THREAD.format(after_s=after_s, how=way))
    assert told["status"] in ("ok", "exited"), told


async def test_each_death_is_told_with_its_cause_and_costs_nobody_else_anything(
    folder: Path, order: random.Random
) -> None:
    async with ObservedRun(folder) as run:
        others = await run.callers_of(len(WAYS))
        for _ in range(ROUNDS):
            victims, ways = order.sample(others, 3), order.sample([*WAYS], 3)
            await one_round(run, dict(zip(victims, ways, strict=True)), order)
        await run.close()


async def one_round(
    run: ObservedRun, ways: dict[CountingCaller, str], order: random.Random
) -> None:
    before = {caller: len(caller.deaths) for caller in run.callers}
    for caller, way in ways.items():
        await arm(caller, way, round(order.uniform(0, LATEST_S), 3))

    def is_over() -> bool:
        return all(len(caller.deaths) > before[caller] or caller.lies for caller in ways)

    async with counting(*run.callers):
        with anyio.fail_after(60):
            while not is_over():
                await anyio.sleep(0.02)
    await run.check()
    for caller in run.callers:
        (*_, last) = caller.deaths or [""]
        died = len(caller.deaths) - before[caller]
        if caller in ways:
            assert died >= 1
            assert WAYS[ways[caller]] in last, (ways[caller], last)
        else:
            assert died == 0
        assert not caller.ended
