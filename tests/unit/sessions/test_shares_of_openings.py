"""One principal's openings and closings hold up nobody else's, however slow its containers are."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from sandbox.container.labels import ANNOTATION_POLICY
from sandbox.container.spec import ContainerSpec
from sandbox.errors import QuotaExceeded
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.testing import FakeEngine, FakeRuntime

from ...support.waiting import until
from .controllers import Controllers

ALICE, BOB = Caller("alice"), Caller("bob")
THREADS = 16
MANY = 30
NORMAL_S = 5.0

pytestmark = pytest.mark.anyio


class SlowRuntime(FakeRuntime):
    """An adapter with few threads; the engine does not get done with alice's containers."""

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__(engine)
        self.threads = anyio.CapacityLimiter(THREADS)
        self.stuck: set[str] = set()
        """Calls that do not end for alice's containers."""
        self.go_on = anyio.Event()

    async def create(self, spec: ContainerSpec) -> str:
        async with self.threads:
            await self._dwell("create", spec.annotations)
            return await super().create(spec)

    async def remove(self, container_id: str) -> None:
        async with self.threads:
            container = self.fake.containers.get(container_id)
            if container is not None:
                await self._dwell("remove", container.spec.annotations)
            await super().remove(container_id)

    async def start(self, container_id: str) -> None:
        async with self.threads:
            await super().start(container_id)

    async def _dwell(self, call: str, annotations: dict[str, str]) -> None:
        if call in self.stuck and annotations[ANNOTATION_POLICY] == "many":
            await self.go_on.wait()


@pytest.fixture
def slow(controllers: Controllers) -> SlowRuntime:
    """What the controllers of this module speak to their engine with."""
    (controllers.policies / "many.yaml").write_text(f"version: 1\nlimits: {{sessions: {MANY}}}\n")
    made = SlowRuntime(controllers.engine)
    controllers.make_runtime = lambda engine: made
    return made


@pytest.fixture
async def manager(slow: SlowRuntime, controllers: Controllers) -> AsyncIterator[SessionManager]:
    async with controllers.running() as manager:
        yield manager
        slow.go_on.set()


async def served_meanwhile(manager: SessionManager, slow: SlowRuntime) -> None:
    """Somebody else opens and closes a session within the usual time."""
    try:
        with anyio.fail_after(NORMAL_S):
            session = await manager.open(BOB)
            await manager.close(BOB, session.session_id)
    finally:
        slow.go_on.set()


@pytest.mark.timed
async def test_many_openings_of_one_principal_hold_up_no_other_ones(
    manager: SessionManager, slow: SlowRuntime
) -> None:
    slow.stuck = {"create"}
    async with anyio.create_task_group() as opening:
        for _ in range(MANY):
            opening.start_soon(lambda: manager.open(ALICE, policy="many", reuse=False))
        await until(lambda: slow.threads.borrowed_tokens >= 4)
        await served_meanwhile(manager, slow)
    assert len(manager.list(ALICE)) == MANY


@pytest.mark.timed
async def test_many_closings_of_one_principal_hold_up_no_openings_of_another(
    manager: SessionManager, slow: SlowRuntime
) -> None:
    sessions = [await manager.open(ALICE, policy="many", reuse=False) for _ in range(MANY)]
    slow.stuck = {"remove"}
    async with anyio.create_task_group() as closing:
        for session in sessions:
            closing.start_soon(manager.close, ALICE, session.session_id)
        await until(lambda: slow.threads.borrowed_tokens >= 6)
        await served_meanwhile(manager, slow)
    assert manager.list(ALICE) == []


async def test_one_principal_cannot_have_all_the_sessions_of_a_controller(
    slow: SlowRuntime, controllers: Controllers
) -> None:
    async with controllers.running(max_sessions=8) as manager:
        for _ in range(6):
            await manager.open(ALICE, policy="many", reuse=False)
        with pytest.raises(QuotaExceeded, match="last of them are for callers with fewer than 4"):
            await manager.open(ALICE, policy="many", reuse=False)
        await manager.open(BOB, policy="many", reuse=False)
        await manager.open(BOB, policy="many", reuse=False)
        with pytest.raises(QuotaExceeded, match=r"as many sessions as it may have \(8\)"):
            await manager.open(Caller("eve"))
