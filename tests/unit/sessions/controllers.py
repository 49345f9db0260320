"""Controllers over an engine in memory, with a clock that tests move."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from sandbox import resources
from sandbox.cli.wiring import session_manager
from sandbox.config import Settings
from sandbox.kernels.models import ExecutionResult
from sandbox.policy import load
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.session import Session
from sandbox.sessions.slots import SlotKind, take_slot
from sandbox.testing import FakeEngine, FakeRuntime

TIGHT = """\
version: 1
extends: offline
limits:
  sessions: 2
"""

OPEN = """\
version: 1
network: {allow: [{domain: "*.example.com"}]}
"""


class Controllers:
    """Makes controllers that share an engine and a state directory.

    Args:
        engine: The engine.
        state: The state directory.
        policies: A folder of policies beside the built-in ones.
    """

    def __init__(self, engine: FakeEngine, state: Path, policies: Path) -> None:
        self.engine = engine
        self.state = state
        self.policies = policies
        self.make_runtime: Callable[[FakeEngine], FakeRuntime] = FakeRuntime
        self.policy_set = lambda: load(resources.policies(), self.policies)
        self.tag = "test"
        """Of the images of policies."""
        self.ahead_s = 0.0
        """How much later it is than it seems."""

    @asynccontextmanager
    async def running(
        self,
        kind: SlotKind = "serve",
        *,
        keep: bool = False,
        pool: bool = False,
        **settings: Any,
    ) -> AsyncIterator[SessionManager]:
        """A controller for the time of a block, ready to be used."""
        runtime = self.make_runtime(self.engine)
        with take_slot(self.state, kind) as slot:
            async with session_manager(
                runtime,
                self.policy_set(),
                Settings(state_dir=self.state, **settings),
                slot,
                image_for=lambda name: f"sandbox/{name}:{self.tag}",
                keep=keep,
                pool=pool,
                clock=lambda: time.time() + self.ahead_s,
            ) as manager:
                yield manager
        await runtime.aclose()

    def container_ids(self) -> list[str]:
        """The containers that the engine has now."""
        return list(self.engine.containers)


async def run(session: Session, code: str) -> ExecutionResult:
    """Run a cell to its end."""
    async with session.use():
        execution = await session.kernels.execute(code)
    with anyio.fail_after(10):
        return await execution.wait(None)
