"""The one session of a Jupyter Server, as the tools find it: its kernels, files and terminals."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup

from sandbox.audit import AuditLog
from sandbox.errors import InfrastructureError, NotFound
from sandbox.files.files import Files
from sandbox.jupyter.contentsnotebooks import ContentsNotebooks
from sandbox.jupyter.memoryjournal import MemoryJournal
from sandbox.jupyter.notebookkernels import NotebookKernels
from sandbox.jupyter.roomnotebooks import RoomNotebooks
from sandbox.jupyter.rooms import Rooms
from sandbox.jupyter.serverend import ServerEnd
from sandbox.kernels.kernels import Kernels
from sandbox.link.link import Link
from sandbox.outputs.redaction import Redactor
from sandbox.policy import Policy
from sandbox.policy.models import Limits
from sandbox.policy.network import AllowRule, NetworkPolicy
from sandbox.policy.units import DAY
from sandbox.sessions.approvals import Approvals
from sandbox.sessions.liveruns import LiveRuns
from sandbox.sessions.notebooknames import NotebookNames
from sandbox.sessions.notices import notice
from sandbox.terminals.terminals import Terminals

SESSION_ID = "jupyter"
NEVER_S = float(DAY)
"""A kernel here may be a person's: none is restarted because a cell does not heed an interrupt."""
POLICY = Policy(
    name="jupyter-server",
    description="No sandbox: what runs, runs on this Jupyter Server as its user does.",
    limits=Limits(execution_s=DAY, lifetime_s=DAY, kernels=64, terminals=64),
    network=NetworkPolicy(allow=(AllowRule(service="package-index"),)),
)
"""What bounds the answers of the tools here. It isolates nothing."""


class NoCommands:
    """There are none on a Jupyter Server: whoever may run some has terminals and kernels."""

    async def lines_of(self, *_command: Any, **_settings: Any) -> AsyncGenerator[bytes]:
        """What makes pictures smaller in a sandbox; here they stay as they are."""
        raise NotFound("A Jupyter Server has no commands.")
        yield b""


class JupyterSession:
    """What the tools act on; :meth:`run` must be running."""

    workspace = "/"
    """What relative paths begin with: the root of the server's contents."""
    is_usable = True

    def __init__(self, audit: AuditLog) -> None:
        self.session_id = SESSION_ID
        self.principal = SESSION_ID
        self.policy = POLICY
        self.redactor = Redactor()
        self.journal = MemoryJournal()
        self.approvals = Approvals(SESSION_ID, SESSION_ID, POLICY, audit)
        self.kernels = Kernels(SESSION_ID, POLICY.limits, self.journal, grace_s=NEVER_S)
        self.terminals = Terminals(POLICY.limits)
        self.files = Files(POLICY.limits)
        self.commands = NoCommands()
        self.notebook_names = NotebookNames()
        self.notebook_runs = LiveRuns()
        self.notebooks: RoomNotebooks | ContentsNotebooks
        self._end: ServerEnd | None = None
        self._link: Link | None = None
        self._looking = anyio.Lock()
        self._news = anyio.Event()
        """Set, and replaced, when something became of a kernel that is to be noted."""

    def wake(self) -> None:
        """Something became of the server's kernels."""
        self._news.set()

    async def run(
        self, end: ServerEnd, tasks: TaskGroup, sessions: Any = None, rooms: Rooms | None = None
    ) -> None:
        """Bring it up; what keeps it up runs in the tasks.

        Args:
            sessions: The server's session manager, which knows the kernels of its notebooks.
            rooms: Its live rooms, where it has those.
        """
        tasks.start_soon(self.kernels.run)
        tasks.start_soon(self.terminals.run)
        self._end = end
        self._link = await end.link(tasks)
        await self.files.attach(self._link)
        await self.look()
        tasks.start_soon(self._keep_looking)
        tasks.start_soon(self.notebook_runs.serve)
        self.choice = choice = NotebookKernels(sessions, end.kernels, self.look)
        if rooms is None:
            self.notebooks = ContentsNotebooks(SESSION_ID, self.kernels, self.files, choice)
        else:
            self.notebooks = RoomNotebooks(rooms, self.kernels, self.files, choice)
        tasks.start_soon(self.notebooks.run)

    async def _keep_looking(self) -> None:
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            await self.look()

    async def sandboxes(self) -> dict[str, str]:
        """The kernelspecs whose kernels are in sandboxes, each with its policy."""
        return {} if self._end is None else await self._end.kernels.sandboxed()

    async def look(self) -> None:
        """Note the kernels and terminals that others have started, restarted or ended."""
        if self._end is None or self._link is None:
            raise InfrastructureError("The extension is not up.")
        async with self._looking:
            await self.kernels.attach(self._link)
            await self.terminals.attach(self._link)
            for kernel in self.kernels.infos:
                if kernel.state == "dead" and not self._end.kernels.knows(kernel.kernel_id):
                    await self.kernels.stop(kernel.kernel_id)  # nothing of ours was in it

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[None]:
        """Know, for the time of a call, what the server has at its start."""
        end = self._end
        if end is None or not (end.kernels.is_current and end.terminals.is_current):
            await self.look()
        for kernel_id in end.kernels.take_replaced() if end else ():
            notice(
                f"The kernel {kernel_id} was restarted since, and not by a tool: its variables "
                "are gone."
            )
        yield
