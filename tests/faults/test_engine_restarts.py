"""An engine that stops, is killed and comes back, and what held its containers is killed.

It is an engine of these tests' own: the machine's is never touched.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from ..support.counting import counting
from ..support.killing import kill_shim
from ..support.observedrun import ObservedRun
from ..support.ownengine import OwnEngine, own_engine
from ..support.served import RUNTIME

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(RUNTIME != "runc", reason="the engine of these tests has no other"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start an engine"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="the engine is not of this machine"),
]

CALLERS = 3
LATEST_S = 1.0
AWAY = frozenset({"engine_unavailable", "link_lost"})
"""What a call is told of an engine that is away; it has done nothing, or may have."""


@pytest.fixture(scope="module")
def own() -> Iterator[OwnEngine]:
    with own_engine(Path(f"/tmp/faults-engine-{os.getpid()}")) as engine:
        yield engine


async def away(own: OwnEngine, how: signal.Signals, order: random.Random) -> None:
    """Let the engine be away, from a random moment on, for a while."""
    await anyio.sleep(order.uniform(0, LATEST_S))
    await anyio.to_thread.run_sync(own.end, how)
    await anyio.sleep(order.uniform(0, LATEST_S))
    await anyio.to_thread.run_sync(own.start)


async def test_sessions_outlive_an_engine_that_lets_containers_live_when_it_goes(
    own: OwnEngine, tmp_path: Path, order: random.Random
) -> None:
    await anyio.to_thread.run_sync(restarted, own, {"live-restore": True})
    async with ObservedRun(tmp_path, SANDBOX_ENGINE=own.url) as run:
        callers = await run.callers_of(CALLERS, allowed=AWAY)
        for how in order.sample([signal.SIGTERM, signal.SIGKILL], 2):
            async with counting(*callers):
                await away(own, how, order)
            await run.check()
            assert len(run.live) == CALLERS
        await run.close()
    assert nothing_left(own)


async def test_sessions_whose_containers_an_engine_takes_along_are_told_to_be_lost(
    own: OwnEngine, tmp_path: Path, order: random.Random
) -> None:
    await anyio.to_thread.run_sync(restarted, own, {})
    async with ObservedRun(tmp_path, SANDBOX_ENGINE=own.url) as run:
        for how in order.sample([signal.SIGTERM, signal.SIGKILL], 2):
            callers = await run.callers_of(CALLERS, allowed=AWAY)
            async with counting(*callers):
                await away(own, how, order)
            await run.check()
            assert all("exit code" in caller.ended for caller in callers), callers[0].ended
            await run.close()
    assert nothing_left(own)


async def test_a_container_whose_shim_is_killed_is_lost_alone(
    own: OwnEngine, tmp_path: Path, order: random.Random
) -> None:
    async with ObservedRun(tmp_path, SANDBOX_ENGINE=own.url) as run:
        callers = await run.callers_of(CALLERS)
        victim = order.choice(callers)

        def end() -> None:
            with closing(run.aftermath.client()) as engine:
                kill_shim(engine, run.aftermath.container_of(victim.session_id))

        async with counting(*callers):
            await anyio.sleep(order.uniform(0, LATEST_S))
            await anyio.to_thread.run_sync(end)
            await anyio.sleep(LATEST_S)
        await run.check()
        assert [caller.ended != "" for caller in callers] == [each is victim for each in callers]
        await run.close()
    assert nothing_left(own)


def restarted(own: OwnEngine, settings: dict[str, bool]) -> None:
    """Start it anew with other settings."""
    own.end()
    own.set(settings)
    own.start()


def nothing_left(own: OwnEngine) -> bool:
    """Whether no container, volume or process of one is left on an engine that is nobody else's."""
    left = own.docker("ps", "--all", "--quiet").stdout + own.docker("volume", "ls", "-q").stdout
    return not left
