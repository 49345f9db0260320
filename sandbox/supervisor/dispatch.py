"""The link's other end: connections, requests, and which part answers them."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import NoReturn

from sandbox import __version__
from sandbox.errors import InvalidRequest
from sandbox.link.link import Link
from sandbox.link.stream import Stream
from sandbox.supervisor.activity import Activity
from sandbox.supervisor.branches import Branches
from sandbox.supervisor.children import Children
from sandbox.supervisor.commandhosts import CommandHosts
from sandbox.supervisor.fileops import FileOperations
from sandbox.supervisor.headroom import kept_bytes
from sandbox.supervisor.ipython import KernelStart
from sandbox.supervisor.kernelhosts import KernelHosts
from sandbox.supervisor.kernelprocess import Launcher
from sandbox.supervisor.memory import MemoryGuard
from sandbox.supervisor.pipes import PipePair, accept
from sandbox.supervisor.preload import PRELOADED
from sandbox.supervisor.probe import Probe
from sandbox.supervisor.programs import Programs
from sandbox.supervisor.proxy import LocalProxy
from sandbox.supervisor.ptys import Ptys
from sandbox.supervisor.requests import answer
from sandbox.supervisor.snapshots import Snapshots
from sandbox.supervisor.tasks import Background

INTRODUCTION_S = 2.0
MAX_STRANGERS = 16
"""Connections that have not handed over a link yet; any process in the container can make some."""
LINK_WAIT_S = 5.0
"""For a connection from inside, while the link is being made again."""

logger = logging.getLogger(__name__)

Operation = Callable[[Stream], Awaitable[None]]


class Supervisor:
    """Everything inside one container."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        workspace: str,
        state_dir: str,
        env: Mapping[str, str],
        fork: Callable[[KernelStart], Awaitable[int]],
    ) -> None:
        self._listener = listener
        self._workspace = workspace
        self._state_dir = state_dir
        self._env = env
        self._fork = fork
        self._started_at = time.time()
        self._children = Children()
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._strangers = asyncio.Semaphore(MAX_STRANGERS)
        self._operations: dict[str, Operation] = {}

    async def run(self) -> None:
        """Serve links until cancelled."""
        self._children.start()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = Background(group)
                self._operations = self._assemble(tasks)
                tasks.start(MemoryGuard(self._children).run())
                tasks.start(LocalProxy(self._current_link, tasks).run())
                while True:
                    connection = await accept(self._listener, self._strangers)
                    tasks.start(self._introduced(connection))
        finally:
            self._children.stop()

    def end(self) -> NoReturn:
        """End this process at once, and with it everything it started."""
        self._children.kill()
        os._exit(0)

    async def serve(self, io: PipePair) -> None:
        """Serve one link until it ends; the one before is closed."""
        link = Link(io, initiator=False, hello={"build": __version__}, on_open=self._opened)
        previous, self._link = self._link, link
        if previous is not None:
            await previous.aclose()
        self._linked.set()
        await link.run()
        if self._link is link:
            self._linked.clear()
        if link.error is not None:
            logger.warning("a link ended: %s", link.error)

    async def _current_link(self) -> Link | None:
        """The link, waited for within a bound while it is being made again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINK_WAIT_S):
                await self._linked.wait()
        return self._link if self._linked.is_set() else None

    def _assemble(self, tasks: Background) -> dict[str, Operation]:
        env = self._env
        launcher = Launcher(self._children, self._fork, env, self._state_dir)
        kernels = KernelHosts(launcher, self._workspace, tasks)
        snapshots = Snapshots(self._workspace, self._children, env, tasks, kept_bytes())
        branches = Branches(kernels, self._children, tasks, snapshots)
        programs = Programs(self._children, env, self._workspace, tasks)
        commands = CommandHosts(programs)
        terminals = Ptys(self._children, env, self._workspace, tasks)
        files = FileOperations(self._workspace, self._children, env)
        return {
            "info": lambda stream: self._info(stream, kernels),
            "activity": Activity(kernels).tell,
            "probe": Probe(self._children).run,
            "kernel.start": kernels.start,
            "kernel.list": kernels.list,
            "kernel.interrupt": kernels.interrupt,
            "kernel.restart": kernels.restart,
            "kernel.stop": kernels.stop,
            "kernel.evidence": kernels.evidence,
            "kernel.attach": kernels.attach,
            "kernel.carry_out": kernels.carry_out,
            "kernel.carry_in": kernels.carry_in,
            "kernel.branch": branches.branch,
            "kernel.checkpoint": branches.checkpoint,
            "kernel.rollback": branches.rollback,
            "kernel.checkpoints": branches.checkpoints,
            "kernel.drop_checkpoint": branches.drop_checkpoint,
            "process.run": programs.run,
            "command.start": commands.start,
            "command.list": commands.list,
            "command.attach": commands.attach,
            "command.stop": commands.stop,
            "command.forget": commands.forget,
            "terminal.open": terminals.open,
            "terminal.list": terminals.list,
            "terminal.attach": terminals.attach,
            "terminal.resize": terminals.resize,
            "terminal.close": terminals.close,
            "file.stat": files.stat,
            "file.list": files.list,
            "file.read": files.read,
            "file.write": files.write,
            "file.delete": files.delete,
            "file.move": files.move,
            "file.mkdir": files.mkdir,
        }

    async def _introduced(self, connection: socket.socket) -> None:
        """Take a bridge's descriptors and serve them; what is not a bridge is let go."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        with connection:
            connection.setblocking(False)
            loop.add_reader(connection, readable.set)
            try:
                async with asyncio.timeout(INTRODUCTION_S):
                    await readable.wait()
                _, fds, _, _ = socket.recv_fds(connection, 16, 2)
            except (TimeoutError, OSError):
                return
            finally:
                loop.remove_reader(connection)
                self._strangers.release()
            if len(fds) != 2:
                for fd in fds:
                    os.close(fd)
                return
            await self.serve(PipePair(*fds))

    async def _opened(self, stream: Stream) -> None:
        operation = self._operations.get(str(stream.request.get("op")))
        if operation is None:
            raise InvalidRequest(f"There is no operation {str(stream.request.get('op'))[:40]!r}.")
        await operation(stream)

    async def _info(self, stream: Stream, kernels: KernelHosts) -> None:
        await answer(
            stream,
            uid=os.getuid(),
            gid=os.getgid(),
            pid=os.getpid(),
            python=platform.python_version(),
            started_at=self._started_at,
            preloaded=PRELOADED.loaded,
            not_preloaded=PRELOADED.refused,
            kernelspecs={
                name: {"display_name": spec.display_name, "language": spec.language}
                for name, spec in kernels.specs().items()
            },
        )
