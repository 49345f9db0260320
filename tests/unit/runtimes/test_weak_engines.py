"""Sessions on engines that can less than Docker, or say less, or lie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from sandbox import resources
from sandbox.cli.wiring import session_manager
from sandbox.config import Settings
from sandbox.container.features import ALL, REPORTABLE, Feature
from sandbox.container.spec import ContainerSpec
from sandbox.errors import PolicyNotEnforced
from sandbox.policy import load
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.slots import take_slot
from sandbox.testing import FakeEngine, FakeRuntime

pytestmark = pytest.mark.anyio

ADA = Caller("ada")
Weak = Callable[[FakeEngine], AbstractAsyncContextManager[SessionManager]]


class CountingRuntime(FakeRuntime):
    """Knows how many containers it was asked to make."""

    creations = 0

    async def create(self, spec: ContainerSpec) -> str:
        self.creations += 1
        return await super().create(spec)


@pytest.fixture
def controller(tmp_path: Path) -> Weak:
    @asynccontextmanager
    async def running(engine: FakeEngine) -> AsyncIterator[SessionManager]:
        with take_slot(tmp_path / "state", "serve") as slot:
            async with session_manager(
                CountingRuntime(engine),
                load(resources.policies()),
                Settings(state_dir=tmp_path / "state"),
                slot,
                image_for=lambda name: f"sandbox/{name}:test",
                keep=False,
            ) as manager:
                yield manager

    return running


@pytest.mark.parametrize("name", [Feature.SECCOMP, Feature.NETWORK, Feature.ULIMIT_CORE])
async def test_what_it_cannot_enforce_is_refused_before_a_container_is_made(
    controller: Weak, name: Feature
) -> None:
    async with controller(FakeEngine(enforces=ALL - {name})) as manager:
        with pytest.raises(PolicyNotEnforced, match=name):
            await manager.open(ADA)
        assert isinstance(manager.runtime, CountingRuntime)
        assert manager.runtime.creations == 0
        assert manager.list(ADA) == []


@pytest.mark.parametrize(
    "name", [Feature.MEMORY, Feature.USER, Feature.TMPFS_INODES, Feature.ENVIRONMENT, Feature.INIT]
)
async def test_what_it_cannot_report_is_proved_inside(controller: Weak, name: Feature) -> None:
    async with controller(FakeEngine(reports=REPORTABLE - {name})) as manager:
        session = await manager.open(ADA)
        info = session.info(with_proof=True)
        assert info.proof is not None
        assert [check.ok for check in info.proof.checks if check.name.endswith(f".{name}")] == [
            True
        ]


async def test_what_it_cannot_report_and_is_not_so_is_found_inside(controller: Weak) -> None:
    engine = FakeEngine(reports=REPORTABLE - {Feature.MEMORY})
    engine.probe = {"memory_limit": -1}
    async with controller(engine) as manager:
        with pytest.raises(PolicyNotEnforced, match="memory_limit"):
            await manager.open(ADA)
    assert engine.containers == {}


@pytest.mark.parametrize("name", [Feature.CPU, Feature.SECCOMP, Feature.NOTHING_ELSE])
async def test_what_it_cannot_report_and_nothing_measures_is_refused(
    controller: Weak, name: Feature
) -> None:
    engine = FakeEngine(reports=REPORTABLE - {name})
    async with controller(engine) as manager:
        with pytest.raises(PolicyNotEnforced, match=f"not reported.{name}"):
            await manager.open(ADA)
        assert manager.list(ADA) == []
    assert engine.containers == {}


@pytest.mark.parametrize("told", [{"cpu": 1}, {"cpu": None}, {"device": "/dev/kvm"}])
async def test_what_it_reports_wrongly_or_not_at_all_is_refused(
    controller: Weak, told: dict[str, object]
) -> None:
    engine = FakeEngine()
    engine.alter_facts = lambda facts: {**facts, **told}
    async with controller(engine) as manager:
        with pytest.raises(PolicyNotEnforced, match=next(iter(told))):
            await manager.open(ADA)
    assert engine.containers == {}
