"""Kernels over a supervisor in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from sandbox.kernels.kernels import Kernels
from sandbox.link.link import Link
from sandbox.policy.models import Limits
from sandbox.testing.supervisor import FakeSupervisor

from ...support.machines import Machine, MemoryJournal, fake_machine

SESSION = "s-test"
GRACE_S = 0.2


class Bench:
    """A machine, a journal, and the controllers that come and go."""

    def __init__(self, machine: Machine, supervisor: FakeSupervisor) -> None:
        self.machine = machine
        self.supervisor = supervisor
        self.journal = MemoryJournal()
        self.link: Link | None = None

    @asynccontextmanager
    async def controller(
        self, limits: Limits | None = None, oom: bool | None = None
    ) -> AsyncIterator[Kernels]:
        """Kernels of a controller; leaving it is as sudden as a ``kill -9``."""

        async def oom_probe() -> bool | None:
            return oom

        kernels = Kernels(
            SESSION, limits or Limits(), self.journal, grace_s=GRACE_S, oom_probe=oom_probe
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernels.run)
            await self.connect(kernels)
            yield kernels
            self.journal = self.journal.copy()  # a dying controller writes nothing any more
            tasks.cancel_scope.cancel()
        if self.link is not None:
            await self.link.aclose()

    async def connect(self, kernels: Kernels) -> None:
        """Make a new link."""
        self.link = await self.machine.connect()
        await kernels.attach(self.link)

    async def cut(self) -> None:
        """Cut the link."""
        assert self.link is not None
        await self.link.aclose()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with fake_machine() as (machine, supervisor):
        yield Bench(machine, supervisor)
