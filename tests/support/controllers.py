"""Controllers on a real engine, and what tests do with their sessions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from sandbox import resources
from sandbox.cli.wiring import session_manager
from sandbox.commands.models import CommandResult
from sandbox.config import Settings
from sandbox.container import images
from sandbox.container.labels import LABEL_OWNER
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.policy import load
from sandbox.runtimes.base import ContainerInfo
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.session import Session
from sandbox.sessions.slots import SlotKind, take_slot


class Controllers:
    """Makes controllers that share an engine and a state directory.

    Args:
        engine: The engine.
        state: The state directory.
        runtime: What runs the containers: ``runc`` or ``runsc``.
    """

    def __init__(self, engine: DockerRuntime, state: Path, runtime: str) -> None:
        self.engine = engine
        self.state = state
        self.runtime = runtime
        self.settings: dict[str, Any] = {}
        """Further settings of the controllers that are started from now on."""
        self.policies: list[Path] = []
        """Folders of policies besides the built-in ones."""
        self.image_for = images.reference
        self.ahead_s = 0.0
        """How much later it is than it seems."""

    @asynccontextmanager
    async def running(
        self, kind: SlotKind = "serve", *, keep: bool = False, pool: bool = False
    ) -> AsyncIterator[SessionManager]:
        """A controller for the time of a block."""
        settings = {"state_dir": self.state, "runtime": self.runtime, **self.settings}
        with take_slot(self.state, kind) as slot:
            async with session_manager(
                self.engine,
                load(resources.policies(), *self.policies),
                Settings(**settings),
                slot,
                image_for=self.image_for,
                keep=keep,
                pool=pool,
                clock=lambda: time.time() + self.ahead_s,
            ) as manager:
                yield manager

    def owners(self) -> list[str]:
        """The owner ids that this state directory has made."""
        return [path.read_text().strip() for path in self.state.glob("controllers/*/owner")]

    async def containers(self) -> list[ContainerInfo]:
        """The containers of all these owners."""
        found: list[ContainerInfo] = []
        for owner in self.owners():
            found += await self.engine.list({LABEL_OWNER: owner})
        return found

    async def remove_all(self) -> list[str]:
        """Remove what is left of these owners and say what it was."""
        left = await self.containers()
        for container in left:
            await self.engine.remove(container.id)
        return [container.name for container in left]


async def start(session: Session, code: str) -> Execution:
    """Start a cell."""
    async with session.use():
        execution = await session.kernels.execute(code)
    return execution


async def ended(execution: Execution, timeout_s: float = 60) -> ExecutionResult:
    """Wait for a cell's end."""
    with anyio.fail_after(timeout_s):
        return await execution.wait(None)


async def run(session: Session, code: str) -> ExecutionResult:
    """Run a cell to its end."""
    return await ended(await start(session, code))


async def shell(session: Session, command: str) -> CommandResult:
    """Run a command to its end."""
    async with session.use():
        with anyio.fail_after(60):
            return await session.commands.run(command)


def text_of(result: ExecutionResult) -> str:
    """What a cell wrote."""
    return "".join(str(output.get("text", "")) for output in result.outputs)
