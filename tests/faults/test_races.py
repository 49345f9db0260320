"""Opening, claiming, using, branching, closing and expiring, all at once and in any order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import anyio
import pytest

from sandbox.container.labels import LABEL_OWNER, LABEL_SANDBOX
from sandbox.container.sandbox import Sandbox
from sandbox.errors import (
    Conflict,
    LinkLost,
    NotFound,
    QuotaExceeded,
    SessionLost,
)
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from ..support.controllers import Controllers, run, text_of
from ..support.served import RUNTIME

pytestmark = pytest.mark.anyio

POLICY = """\
version: 1
image: python
limits: {memory: 256MiB, sessions: 3, idle: 10m, lifetime: 8h}
workspace: {size: 16MiB}
tmp: {size: 16MiB}
shm: 16MiB
pool: {min: 2, max: 2}
"""
IDLE_S = 600.0
ACTORS = 6
STEPS = 14
EXPECTED = (Conflict, LinkLost, NotFound, QuotaExceeded, SessionLost)
"""What one who acts may be told of what the others have done meanwhile."""
SETTLED_S = 40.0


class Races:
    """Actors of three principals, who share their principals' sessions."""

    def __init__(self, controllers: Controllers, manager: SessionManager) -> None:
        self.controllers = controllers
        self.manager = manager
        self.told: Counter[str] = Counter()
        self.sandboxes: dict[str, str] = {}
        """Which session each sandbox has served."""
        self.values: dict[str, set[int]] = {}
        """What was put into each session's kernel."""

    async def act(self, name: str, order: random.Random) -> None:
        """One actor's steps."""
        caller = Caller(name, default_key=f"{name} {order.randrange(2)}")
        steps = (self.open, self.default, self.use, self.use, self.branch, self.close, self.expire)
        for _ in range(STEPS):
            step = order.choice(steps)
            try:
                with anyio.fail_after(SETTLED_S):
                    await step(caller, order)
                self.told[step.__name__] += 1
            except EXPECTED as exc:
                self.told[f"{step.__name__}: {exc.code}"] += 1

    def mine(self, caller: Caller, order: random.Random) -> str:
        """A session of the caller's, or none that there is."""
        there = [info.session_id for info in self.manager.list(caller)]
        return order.choice([*there, "s-none"])

    def seen(self, session: Session) -> None:
        """No sandbox serves two sessions."""
        assert self.sandboxes.setdefault(session.claim.sandbox_id, session.session_id) == (
            session.session_id
        )

    async def open(self, caller: Caller, order: random.Random) -> None:
        self.seen(await self.manager.open(caller, policy="raced", reuse=order.random() < 0.3))

    async def default(self, caller: Caller, order: random.Random) -> None:
        self.seen(await self.manager.get(caller))

    async def use(self, caller: Caller, order: random.Random) -> None:
        """Put a value into a session: what it has had before is what was put there."""
        session = await self.manager.get(caller, self.mine(caller, order))
        known = self.values.setdefault(session.session_id, set())
        value = order.randrange(10**9)
        known.add(value)
        result = await run(session, f"print(globals().get('v', 0))\nv = {value}")
        if result.status == "ok":
            before = int(text_of(result))
            assert before == 0 or before in known, "the value of another session"
        else:
            assert result.status == "lost", result
            assert result.reason

    async def branch(self, caller: Caller, order: random.Random) -> None:
        session = await self.manager.get(caller, self.mine(caller, order))
        async with session.use():
            made = await session.kernels.branches.branch()
            assert made.kernel_id in {info.kernel_id for info in session.kernels.infos}
            if order.random() < 0.5:
                await session.kernels.stop(made.kernel_id)

    async def close(self, caller: Caller, order: random.Random) -> None:
        info = await self.manager.close(caller, self.mine(caller, order))
        assert info.state in ("closed", "expired", "lost")

    async def expire(self, caller: Caller, order: random.Random) -> None:
        """Let what nobody uses be over, while others may just come for it."""
        self.controllers.ahead_s += IDLE_S + 1
        await self.manager.sweep()

    # --- what must be so

    async def containers(self) -> set[str]:
        """The sandboxes that have a container."""
        found = await self.manager.runtime.list({LABEL_OWNER: self.manager.owner})
        return {each.labels[LABEL_SANDBOX] for each in found}

    async def settled(self) -> None:
        """In the end there is a container for each session and each that is ready, and no other."""
        with anyio.fail_after(SETTLED_S):
            while True:
                live = {session.claim.sandbox_id for session in self.live()}
                ready = {each.identity.sandbox_id for each in self.ready()}
                there = await self.containers()
                raced = [each for each in self.ready() if each.policy.name == "raced"]
                if there == live | ready and len(raced) == 2:
                    break
                await anyio.sleep(0.1)
        assert not ready & self.sandboxes.keys(), "one that has served waits for another session"

    def live(self) -> list[Session]:
        return [each for each in self.manager._sessions.values() if not each.is_ending]

    def ready(self) -> list[Sandbox]:
        shelves = self.manager.pool._shelves.values()
        return [each for shelf in shelves for each in shelf.ready]


async def test_whatever_comes_together_each_is_told_the_truth_and_nothing_is_left(
    engine: DockerRuntime, folder: Path, order: random.Random
) -> None:
    policies = folder / "policies"
    policies.mkdir()
    (policies / "raced.yaml").write_text(POLICY)
    controllers = Controllers(engine, folder / "state", RUNTIME)
    controllers.policies = [policies]
    controllers.settings = {"default_policy": "raced"}
    before = len(asyncio.all_tasks())
    async with controllers.running(pool=True) as manager:
        races = Races(controllers, manager)
        async with anyio.create_task_group() as tasks:
            for number in range(ACTORS):
                own = random.Random(order.random())  # noqa: S311  # an order
                tasks.start_soon(races.act, f"principal-{number % 3}", own)
        print(dict(races.told))
        await races.settled()
        for session in races.live():
            assert (await run(session, "print('here')")).status == "ok"
            await manager.close(Caller(session.principal), session.session_id)
        await races.settled()
    assert await controllers.containers() == []
    with anyio.fail_after(SETTLED_S):
        while len(asyncio.all_tasks()) > before:
            await anyio.sleep(0.05)
