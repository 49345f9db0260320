"""One kernel over all its processes: starting, ending, interrupting, and what it says."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sandbox.errors import Conflict, InfrastructureError, ProtocolError, SandboxError
from sandbox.link import wire
from sandbox.supervisor import messagelog, oom
from sandbox.supervisor.channels import Channels
from sandbox.supervisor.children import Child
from sandbox.supervisor.evidence import full_filesystems, killed_since
from sandbox.supervisor.goingon import going_on
from sandbox.supervisor.kernelprocess import Launch, Launcher, Process
from sandbox.supervisor.kernelspecs import InstalledKernel
from sandbox.supervisor.pairchannels import PairChannels
from sandbox.supervisor.restraint import every_descriptor
from sandbox.supervisor.tasks import Background, alongside
from sandbox.supervisor.zmtp import Incoming

START_TIMEOUT_S = 60.0
DRAIN_S = 0.25
PASS_ON_S = 0.1
ASK_TIMEOUT_S = 15.0
ALARM_TIMEOUT_S = 2.0
MUTE_S = 1.0
"""How long a process may live without a connection: it may be about to end."""


class KernelHost:
    """One kernel. Its log and its id stay; its process may be replaced."""

    def __init__(self, kernel_id: str, spec: InstalledKernel, cwd: str) -> None:
        self.kernel_id = kernel_id
        self.branch_of = ""
        """The kernel that it began as a branch of; empty for one that began anew."""
        self.log = messagelog.MessageLog(self._read_on)
        self._spec = spec
        self._cwd = cwd
        self._epoch = 0
        self._process: Process | None = None
        self._channels: Channels | PairChannels | None = None
        self._running: set[str] = set()
        self._changing = asyncio.Lock()
        self._oom_before: oom.OomCount | None = None
        self._tree_before: frozenset[int] = frozenset()
        self._cell_at = 0.0

    # --- what it is

    def process(self) -> dict[str, int]:
        """Its present process: ``pid`` and ``epoch``."""
        return {"pid": self._child.pid if self._child else 0, "epoch": self._epoch}

    @property
    def pid(self) -> int:
        """The number of its present process; 0 when that has ended."""
        return self._child.pid if self._child is not None and self._child.alive else 0

    @property
    def name(self) -> str:
        """The name of what it runs."""
        return self._spec.name

    @property
    def _child(self) -> Child | None:
        return self._process.child if self._process is not None else None

    def describe(self) -> dict[str, Any]:
        """Its entry in ``kernel.list``."""
        return {
            "kernel_id": self.kernel_id,
            "name": self._spec.name,
            **self.process(),
            "alive": self._child is not None and self._child.alive,
            "last_seq": self.log.last_seq,
            "first_seq": self.log.first_seq,
            "branch_of": self.branch_of,
        }

    # --- its life

    async def start(self, launcher: Launcher, tasks: Background) -> None:
        """Start a process and wait until it answers.

        Raises:
            InfrastructureError: It ended, or did not answer; says its last words.
        """
        await self.start_as(partial(launcher.launch, self._spec, self._cwd), tasks)

    async def start_as(self, launch: Launch, tasks: Background) -> None:
        """Start a process in another way, and wait until it answers.

        Raises:
            InfrastructureError: It ended, or did not answer; says its last words.
        """
        async with self._changing:
            with every_descriptor():
                self._begin(await self._ready(launch, tasks))

    async def restart(self, launcher: Launcher, tasks: Background) -> None:
        """Kill the process with all its descendants and start another."""
        async with self._changing:
            await self._kill()
            with every_descriptor():
                launch = partial(launcher.launch, self._spec, self._cwd)
                self._begin(await self._ready(launch, tasks))

    def twin(self, kernel_id: str) -> KernelHost:
        """A kernel of the same kind, without a process, which is to be a branch of this one."""
        twin = KernelHost(kernel_id, self._spec, self._cwd)
        twin.branch_of = self.kernel_id
        return twin

    async def replace(
        self,
        launch: Launch,
        tasks: Background,
        event: Mapping[str, Any],
        first: Callable[[], Awaitable[None]],
    ) -> None:
        """Start another process, and kill the present one once the other answers.

        Args:
            event: What the log says before it says that the other has started.
            first: What has to be done before the present one is killed. Where it fails, or the
                other process does not answer, nothing has changed.
        """
        async with self._changing:
            with every_descriptor():
                process = await self._ready(launch, tasks)
            try:
                await first()
            except BaseException:
                await self._refuse(process)
                raise
            if self._running or self._process is None:
                await self._kill()
            else:  # what it had to say is said, and its memory takes a while to be taken down
                self._process.child.kill_tree()
            self._begin(process, event)

    async def stop(self) -> None:
        """Kill the process with all its descendants; nothing more is logged."""
        async with self._changing:
            await self._kill()
            self.log.finish()

    def check_idle(self) -> None:
        """Refuse what a process of a Python kernel does between two cells only.

        Raises:
            Conflict: It runs a cell, has ended, or is another kind of kernel.
        """
        if self._spec.argv:
            raise Conflict(f"Only Python kernels can be branched; this one runs {self.name!r}.")
        if self._channels is None:
            remedy = "Restart it, or roll it back to a checkpoint."
            raise Conflict("The kernel's process has ended.", remedy=remedy)
        if self._running:
            remedy = "Wait until it has ended, or interrupt it."
            raise Conflict("The kernel runs a cell.", remedy=remedy)

    async def ask(
        self, order: str, fds: Sequence[int], *, timeout_s: float = ASK_TIMEOUT_S, **more: Any
    ) -> Any:
        """Have the process of a Python kernel do something between two cells.

        Args:
            fds: Handed over, and closed here.

        Raises:
            Conflict: It does not answer, or refuses, in its words.
            InfrastructureError: It ended meanwhile.
        """
        channels = self._channels
        if not isinstance(channels, PairChannels):
            for fd in fds:
                os.close(fd)
            raise InfrastructureError("The kernel's process has ended.")
        try:
            async with asyncio.timeout(timeout_s):
                return await channels.ask(order, fds, **more)
        except TimeoutError as exc:
            remedy = "It may run something: interrupt it, or wait."
            raise Conflict(
                f"The kernel did not answer for {timeout_s:.0f} seconds.", remedy=remedy
            ) from exc

    async def has_alarm(self) -> bool:
        """Whether a Python kernel that runs no cell has set an alarm, which nobody else can see;
        also where it does not answer."""
        if self._running or not isinstance(self._channels, PairChannels):
            return False
        try:
            return bool(await self.ask("alarm", [], timeout_s=ALARM_TIMEOUT_S))
        except SandboxError:
            return True

    def tell(self, event: Mapping[str, Any]) -> None:
        """Keep something that happened to the kernel in its log."""
        self.log.event(self._epoch, event)

    def interrupt(self) -> None:
        """Interrupt the running cell, the way this kernel wants it."""
        if self._spec.interrupt_by_message and self._channels is not None:
            self._channels.send_message("control", "interrupt_request")
        elif self._child is not None:
            self._child.signal(signal.SIGINT)

    def evidence(self) -> dict[str, Any]:
        """What can be seen now of why its last cell failed."""
        return {"full": full_filesystems(), **killed_since(self._oom_before)}

    async def passed_on_interrupt(self) -> None:
        """Wait while a program may pass an interrupt on: one that runs others, as a shell does, and
        sees them killed instead would go on with what is next."""
        if self._spec.argv:
            await asyncio.sleep(PASS_ON_S)

    def end_what_was_started(self) -> int:
        """End all that the running cell has started, and log how many processes that were."""
        before, at = self._tree_before, self._cell_at
        ended = self._child.kill_since(before, at) if self._child is not None else 0
        if ended:
            self.log.event(self._epoch, {"event": "ended", "processes": ended})
        return ended

    async def send(self, channel: str, parts: list[bytes]) -> None:
        """Send a Jupyter message; to a kernel that has ended it goes nowhere, as its log says."""
        if self._channels is not None:
            if channel == "shell" and _begins_a_cell(parts):
                self._note_what_is_there(self._channels)
                self._running.add(_id(parts[1]))
            await self._channels.send(channel, parts)

    def _note_what_is_there(self, channels: Channels | PairChannels) -> None:
        """Before a cell: what is not of its making.

        To look at every process takes longer than a small cell. A kernel that says that it has
        started none is believed; what it hides is known by its age, to a hundredth of a second.
        """
        self._oom_before = oom.read()
        self._tree_before = frozenset()
        if self._child is not None:
            if not isinstance(channels, PairChannels):
                self._tree_before = self._child.tree()
            elif channels.has_started:
                self._tree_before = self._child.tree()
                channels.has_started = len(self._tree_before) > 1
        self._cell_at = time.clock_gettime(time.CLOCK_BOOTTIME)

    async def _kill(self) -> None:
        if self._process is not None:
            self._process.child.kill_tree()
            await self._process.ended.wait()

    async def _ready(self, launch: Launch, tasks: Background) -> Process:
        """Start a process, which answers but is not the kernel's yet."""
        epoch, before = self._epoch + 1, oom.read()
        process = await launch(lambda c, message: self._received(epoch, c, message))
        child, channels = process.child, process.channels
        tasks.start(self._live(process, before))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await channels.open(lambda: child.alive)
        except (TimeoutError, InfrastructureError) as exc:
            await self._refuse(process)
            raise InfrastructureError(
                f"The kernel {self._spec.name} did not start. {channels.said}".rstrip()
            ) from exc
        channels.pause()
        return process

    def _begin(self, process: Process, event: Mapping[str, Any] | None = None) -> None:
        """Take a process that answers as the kernel's."""
        self._epoch += 1
        self._process, self._channels = process, process.channels
        self._running.clear()
        if event is not None:
            self.tell(event)
        self.tell({"event": "started", "pid": process.child.pid})
        process.accepted.set_result(self._epoch)
        process.channels.resume()

    async def _refuse(self, process: Process) -> None:
        process.accepted.set_result(0)
        process.child.kill_tree()
        await process.ended.wait()

    async def _live(self, process: Process, oom_before: oom.OomCount | None) -> None:
        """See to one process from its start until nothing more comes from it."""
        child, channels = process.child, process.channels
        self._oom_before = oom_before
        try:
            async with alongside(_kill_if_mute(process)):
                ending = await asyncio.shield(child.exit)
                full = full_filesystems()  # before what it has left there goes with its processes
                epoch = await process.accepted
                left = child.kill_tree()
                await channels.drained(DRAIN_S)
                await child.tree_gone()
        finally:
            channels.close()
        if epoch:
            if self._channels is channels:
                self._channels = None
            if child.is_out_of_memory:
                is_oom, evidence = True, "the supervisor ended what used most"
            else:
                is_oom, evidence = oom.verdict(
                    self._oom_before,
                    signal=ending.signal,
                    killed=child.killed,
                    is_told=not child.is_foreign,
                )
            event = {"event": "exited", "exit_code": ending.code, "signal": ending.signal}
            event |= {"oom": is_oom, "oom_evidence": evidence, "killed_by_us": child.killed}
            event |= {"processes": left, "full": full}
            self.log.event(epoch, event)
        process.ended.set()

    # --- what it says

    def _received(self, epoch: int, channel: str, message: Incoming) -> None:
        parts = messagelog.jupyter_parts(message.frames)
        if not message.complete:
            self.log.event(epoch, messagelog.oversize(message))
        elif parts is not None:
            if self._running and channel == "iopub" and b'"idle"' in parts[4]:
                cell = _id(parts[2])
                if cell in self._running:
                    self._tell_what_goes_on(cell)
                    self._running.discard(cell)
            stream = channel == "iopub" and messagelog.is_stream(parts)
            can_wait = channel == "iopub" and messagelog.begins_cell(parts)
            for piece in messagelog.pieces(parts) if stream else (parts,):
                self.log.append(epoch, channel, piece, stream=stream, can_wait=can_wait)
        if self.log.is_full and self._channels is not None and self._paces:
            self._channels.pause()

    @property
    def _paces(self) -> bool:
        """Whether the process waits when it is not read from.

        Only our own Python kernel does. Others' publishers silently drop what is not taken from
        them: from those everything is read, and the log drops, and says so.
        """
        return not self._spec.argv and self._child is not None and self._child.alive

    def _tell_what_goes_on(self, cell: str) -> None:
        """Log which processes a cell leaves running, before it is over for its caller."""
        child, channels = self._child, self._channels
        if child and channels and channels.may_have_spawned:
            event = going_on(child.tree() - self._tree_before - {child.pid}, cell)
            if event is not None:
                self.tell(event)

    def _read_on(self) -> None:
        if self._channels is not None:
            self._channels.resume()


async def _kill_if_mute(process: Process) -> None:
    """End a process that has given up its connection, over which alone it could be used."""
    await process.channels.lost()
    await asyncio.sleep(MUTE_S)
    process.child.kill_tree()


def _begins_a_cell(parts: list[bytes]) -> bool:
    """Whether a message runs a cell: what it starts is counted from there, whatever else is asked
    of the kernel meanwhile."""
    return len(parts) > 1 and b'"execute_request"' in parts[1]


def _id(header: bytes) -> str:
    try:
        return str(wire.decode_json(header).get("msg_id"))
    except ProtocolError:
        return ""
