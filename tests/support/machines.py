"""Supervisors for the tests of the controller's clients: in memory, and real ones on this host.

The real one runs as a process of this machine without any isolation, so only harmless code may be
given to it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup

from sandbox import resources
from sandbox.commands.commands import Commands
from sandbox.commands.models import CommandRecord, CommandResult
from sandbox.errors import InfrastructureError
from sandbox.kernels.models import ExecutionRecord, ExecutionResult
from sandbox.link.link import ByteStream, Link
from sandbox.link.memory import MemoryStream, pipe
from sandbox.link.stream import Stream
from sandbox.policy.models import Limits
from sandbox.supervisor.pipes import PipePair
from sandbox.testing.supervisor import FakeSupervisor

REPOSITORY = resources.package().parent

TMPFS = (SimpleNamespace(target="/workspace"), SimpleNamespace(target="/tmp"))


class Machine:
    """Something with a supervisor that links can be made to.

    Args:
        tasks: Where links run.
        dial: Makes a byte stream to the supervisor.
    """

    def __init__(self, tasks: TaskGroup, dial: Callable[[], Awaitable[ByteStream]]) -> None:
        self._tasks = tasks
        self._dial = dial

    async def connect(self) -> Link:
        """Make a link and wait until the supervisor has answered."""
        link = Link(await self._dial(), initiator=True, hello={"build": "test"})
        self._tasks.start_soon(link.run)
        await link.greeting()
        return link


@asynccontextmanager
async def fake_machine(
    supervisor: FakeSupervisor | None = None,
) -> AsyncIterator[tuple[Machine, FakeSupervisor]]:
    """A machine in memory."""
    supervisor = supervisor or FakeSupervisor(cast(Any, SimpleNamespace(tmpfs=TMPFS)), probe={})
    async with anyio.create_task_group() as tasks:

        async def dial() -> ByteStream:
            ours, theirs = pipe()
            tasks.start_soon(supervisor.serve, theirs)
            return ours

        yield Machine(tasks, dial), supervisor
        await supervisor.close()
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def scripted(on_open: Callable[[Stream], Awaitable[None]]) -> AsyncIterator[Machine]:
    """A machine whose supervisor answers as the test says."""
    async with anyio.create_task_group() as tasks:

        async def dial() -> MemoryStream:
            ours, theirs = pipe()
            link = Link(theirs, initiator=False, hello={"build": "scripted"}, on_open=on_open)
            tasks.start_soon(link.run)
            return ours

        yield Machine(tasks, dial)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def host_machine(folder: Path) -> AsyncIterator[Machine]:
    """A real supervisor as a process of this host, with its workspace in ``folder``."""
    workspace = folder / "workspace"
    workspace.mkdir()
    env = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "SANDBOX_SUPERVISOR": f"@sandbox-test-{secrets.token_hex(6)}",
        "SANDBOX_STATE": str(folder / "state"),
        "SANDBOX_WORKSPACE": str(workspace),
        "HOME": str(folder),
    }
    command = [sys.executable, "-m", "sandbox.supervisor"]
    process = await asyncio.create_subprocess_exec(*command, env=env, cwd=workspace)
    bridges: list[subprocess.Popen[bytes]] = []
    try:
        async with anyio.create_task_group() as tasks:

            async def dial() -> ByteStream:
                theirs_in, ours_out = os.pipe()
                ours_in, theirs_out = os.pipe()
                bridge = resources.package() / "supervisor" / "bridge.py"
                command = [sys.executable, "-S", str(bridge)]
                bridges.append(
                    subprocess.Popen(  # noqa: ASYNC220  # it takes a millisecond
                        command, env=env, stdin=theirs_in, stdout=theirs_out
                    )
                )
                os.close(theirs_in)
                os.close(theirs_out)
                return PipePair(ours_in, ours_out)

            yield Machine(tasks, dial)
            tasks.cancel_scope.cancel()
    finally:
        process.terminate()
        with anyio.CancelScope(shield=True):
            await process.wait()
            for bridge in bridges:
                await anyio.to_thread.run_sync(bridge.wait)


class MemoryJournal:
    """An ``ExecutionJournal`` that keeps all that was ever written."""

    def __init__(self) -> None:
        self.records: dict[str, ExecutionRecord] = {}
        self.results: dict[str, ExecutionResult] = {}
        self.ends: dict[str, int] = {}
        """Of each execution that has ended, the last message in its result."""
        self.progressed: list[tuple[str, ExecutionResult, int]] = []
        self.is_full = False
        """Whether no progress can be written, and no end."""

    def copy(self) -> MemoryJournal:
        """Another journal that knows the same."""
        other = MemoryJournal()
        other.records, other.results = dict(self.records), dict(self.results)
        other.ends = dict(self.ends)
        return other

    def started(self, record: ExecutionRecord) -> None:
        self.records[record.execution_id] = record

    def progress(self, execution_id: str, snapshot: ExecutionResult, seq: int) -> None:
        self._check_room()
        self.progressed.append((execution_id, snapshot, seq))
        update = {"snapshot": snapshot, "seq": seq}
        self.records[execution_id] = self.records[execution_id].model_copy(update=update)

    def finished(self, execution_id: str, result: ExecutionResult, seq: int) -> None:
        self._check_room()
        self.results[execution_id] = result
        self.ends[execution_id] = seq

    def unfinished(self, session_id: str) -> list[ExecutionRecord]:
        return [
            record
            for record in self.records.values()
            if record.session_id == session_id and record.execution_id not in self.results
        ]

    def result(self, session_id: str, execution_id: str) -> ExecutionResult | None:
        found = self.results.get(execution_id)
        return found if found is not None and found.session_id == session_id else None

    def ended(self, session_id: str, execution_id: str) -> ExecutionRecord | None:
        result, record = self.result(session_id, execution_id), self.records.get(execution_id)
        if result is None or record is None:
            return None
        return record.model_copy(update={"snapshot": result, "seq": self.ends[execution_id]})

    def _check_room(self) -> None:
        if self.is_full:
            raise InfrastructureError("The journal is full.")


class MemoryCommandJournal:
    """A ``CommandJournal`` in memory."""

    def __init__(self) -> None:
        self.records: dict[str, CommandRecord] = {}
        self.results: dict[str, CommandResult] = {}

    def started(self, record: CommandRecord) -> None:
        self.records[record.command_id] = record

    def refused(self, command_id: str) -> None:
        del self.records[command_id]

    def finished(self, result: CommandResult) -> None:
        self.results[result.command_id] = result

    def unfinished(self, session_id: str) -> list[CommandRecord]:
        return [
            record
            for record in self.records.values()
            if record.session_id == session_id and record.command_id not in self.results
        ]

    def result(self, session_id: str, command_id: str) -> CommandResult | None:
        found = self.results.get(command_id)
        return found if found is not None and found.session_id == session_id else None


@asynccontextmanager
async def serving(
    link: Link, limits: Limits | None = None, journal: MemoryCommandJournal | None = None
) -> AsyncIterator[Commands]:
    """The commands of a session over a link; those that run when this ends run on."""
    commands = Commands("s-test", limits or Limits(), journal or MemoryCommandJournal())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commands.serve)
        await commands.attach(link)
        yield commands
        tasks.cancel_scope.cancel()
