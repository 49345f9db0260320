"""One kernel over all its processes: starting, ending, interrupting, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.errors import Conflict, InfrastructureError
from sandbox.supervisor import messagelog, oom
from sandbox.supervisor.channels import CHANNEL_PORTS, Channels
from sandbox.supervisor.children import Child, Children
from sandbox.supervisor.ipython import KernelStart
from sandbox.supervisor.kernelspecs import InstalledKernel
from sandbox.supervisor.pairchannels import PairChannels
from sandbox.supervisor.pipes import Descriptor
from sandbox.supervisor.restraint import every_descriptor
from sandbox.supervisor.tasks import Background, alongside
from sandbox.supervisor.zmtp import Incoming

START_TIMEOUT_S = 60.0
DRAIN_S = 0.25
MUTE_S = 1.0
"""How long a process may live without a connection: it may be about to end."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """How a kernel process is started."""

    children: Children
    fork: Callable[[KernelStart], Awaitable[int]]
    env: Mapping[str, str]
    state_dir: str

    async def launch(
        self, spec: InstalledKernel, cwd: str, on_message: Callable[[str, Incoming], None]
    ) -> Process:
        """Start a process of a kernel, which answers later."""
        if not spec.argv:
            return await self._fork(cwd, on_message)
        # In the abstract namespace, where nothing is on a disk; unguessable, so that no process
        # of an earlier kernel waits there already.
        endpoint = f"@sandbox-{os.urandom(8).hex()}"
        output_fd, theirs = os.pipe()
        output = Descriptor(output_fd)
        try:
            child = self._spawn(spec, endpoint, cwd, theirs)
        except BaseException:
            output.close()
            raise
        finally:
            os.close(theirs)
        names = {c: f"{endpoint}-{p}" for c, p in CHANNEL_PORTS.items() if c != "hb"}
        return Process(child, Channels(names, output, on_message))

    async def _fork(self, cwd: str, on_message: Callable[[str, Incoming], None]) -> Process:
        channels = PairChannels(on_message)
        mark = self.children.mark()
        try:
            pid = await self.fork(KernelStart(channels.theirs, cwd, dict(self.env), mark))
        except OSError as exc:
            channels.close()
            raise InfrastructureError(
                f"No further process can be started: {exc.strerror}."
            ) from exc
        except BaseException:
            channels.close()
            raise
        channels.forked()
        return Process(self.children.adopt(pid, mark), channels)

    def _spawn(self, spec: InstalledKernel, endpoint: str, cwd: str, output_fd: int) -> Child:
        file = os.path.join(self.state_dir, f"{endpoint.lstrip('@')}.json")
        ports = {f"{channel}_port": port for channel, port in CHANNEL_PORTS.items()}
        info = {"transport": "ipc", "ip": endpoint, "key": "", **ports}
        info |= {"signature_scheme": "hmac-sha256", "kernel_name": spec.name}
        try:
            os.makedirs(self.state_dir, mode=0o700, exist_ok=True)
            with open(file, "w") as output:
                json.dump(info, output)
            null = os.open(os.devnull, os.O_RDONLY)
        except OSError as exc:
            raise InfrastructureError(f"{file} cannot be written: {exc.strerror}.") from exc
        values = {
            "{connection_file}": file,
            "{resource_dir}": spec.resource_dir,
            "{prefix}": sys.prefix,
        }
        argv = list(spec.argv)
        for key, value in values.items():
            argv = [part.replace(key, value) for part in argv]
        try:
            return self.children.spawn(
                argv,
                env={**self.env, **dict(spec.env)},
                cwd=cwd,
                stdin=null,
                stdout=output_fd,
                stderr=output_fd,
            )
        finally:
            os.close(null)


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a kernel, and what it says."""

    child: Child
    channels: Channels | PairChannels


class KernelHost:
    """One kernel. Its log and its id stay; its process may be replaced."""

    def __init__(self, kernel_id: str, spec: InstalledKernel, cwd: str) -> None:
        self.kernel_id = kernel_id
        self.log = messagelog.MessageLog(self._read_on)
        self._spec = spec
        self._cwd = cwd
        self._epoch = 0
        self._child: Child | None = None
        self._channels: Channels | PairChannels | None = None
        self._ended = asyncio.Event()
        self._ended.set()
        self._changing = asyncio.Lock()
        self._oom_before: oom.OomCount | None = None
        self._tree_before: frozenset[int] = frozenset()

    # --- what it is

    def process(self) -> dict[str, int]:
        """Its present process: ``pid`` and ``epoch``."""
        return {"pid": self._child.pid if self._child else 0, "epoch": self._epoch}

    def describe(self) -> dict[str, Any]:
        """Its entry in ``kernel.list``."""
        return {
            "kernel_id": self.kernel_id,
            "name": self._spec.name,
            **self.process(),
            "alive": self._child is not None and self._child.alive,
            "last_seq": self.log.last_seq,
            "first_seq": self.log.first_seq,
        }

    # --- its life

    async def start(self, launcher: Launcher, tasks: Background) -> None:
        """Start a process and wait until it answers.

        Raises:
            InfrastructureError: It ended, or did not answer; says its last words.
        """
        async with self._changing:
            with every_descriptor():
                await self._start(launcher, tasks)

    async def restart(self, launcher: Launcher, tasks: Background) -> None:
        """Kill the process with all its descendants and start another."""
        async with self._changing:
            await self._kill()
            with every_descriptor():
                await self._start(launcher, tasks)

    async def stop(self) -> None:
        """Kill the process with all its descendants; nothing more is logged."""
        async with self._changing:
            await self._kill()
            self.log.finish()

    def interrupt(self) -> None:
        """Interrupt the running cell, the way this kernel wants it."""
        if self._spec.interrupt_by_message and self._channels is not None:
            self._channels.send_message("control", "interrupt_request")
        elif self._child is not None:
            self._child.signal(signal.SIGINT)

    def end_what_was_started(self) -> int:
        """End all that the running cell has started, and log how many processes that were."""
        ended = self._child.kill_since(self._tree_before) if self._child is not None else 0
        if ended:
            self.log.event(self._epoch, {"event": "ended", "processes": ended})
        return ended

    async def send(self, channel: str, parts: list[bytes]) -> None:
        """Send a Jupyter message; to a kernel that has ended it goes nowhere, as its log says."""
        if self._channels is not None:
            if channel == "shell" and _begins_a_cell(parts):
                self._oom_before = oom.read()
                self._tree_before = self._child.tree() if self._child else frozenset()
            await self._channels.send(channel, parts)

    async def ask(self, order: str, fds: Sequence[int], **more: Any) -> Any:
        """Have the kernel do something between two cells; what it answers is hostile.

        Args:
            fds: Handed over with the order, and closed here.

        Raises:
            Conflict: It refuses, does not run, or is none of ours.
            InfrastructureError: It ended.
        """
        if isinstance(self._channels, PairChannels):
            return await self._channels.ask(order, fds, **more)
        for fd in fds:
            os.close(fd)
        if self._spec.argv:
            raise Conflict(f"A kernel of {self._spec.name} cannot do that.")
        raise Conflict("The kernel does not run.")

    async def _kill(self) -> None:
        if self._child is not None:
            self._child.kill_tree()
        await self._ended.wait()

    async def _start(self, launcher: Launcher, tasks: Background) -> None:
        self._epoch += 1
        epoch = self._epoch
        self._oom_before = oom.read()
        process = await launcher.launch(
            self._spec, self._cwd, lambda c, message: self._received(epoch, c, message)
        )
        child, channels = process.child, process.channels
        self._child = child
        self._ended.clear()
        tasks.start(self._live(process))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await channels.open(lambda: child.alive)
        except (TimeoutError, InfrastructureError) as exc:
            child.kill_tree()
            await self._ended.wait()
            raise InfrastructureError(
                f"The kernel {self._spec.name} did not start. {channels.said}".rstrip()
            ) from exc
        self._channels = channels
        self.log.event(epoch, {"event": "started", "pid": child.pid})

    async def _live(self, process: Process) -> None:
        """See to one process from its start until nothing more comes from it."""
        epoch, child, channels = self._epoch, process.child, process.channels
        try:
            async with alongside(_kill_if_mute(process)):
                ending = await asyncio.shield(child.exit)
                left = child.kill_tree()
                await channels.drained(DRAIN_S)
                await child.tree_gone()
        finally:
            channels.close()
        if self._channels is channels:
            self._channels = None
            if child.is_out_of_memory:
                is_oom, evidence = True, "the supervisor ended what used most"
            else:
                is_oom, evidence = oom.verdict(
                    self._oom_before, signal=ending.signal, killed=child.killed
                )
            event = {"event": "exited", "exit_code": ending.code, "signal": ending.signal}
            event |= {"oom": is_oom, "oom_evidence": evidence, "killed_by_us": child.killed}
            event |= {"processes": left}
            self.log.event(epoch, event)
        self._ended.set()

    # --- what it says

    def _received(self, epoch: int, channel: str, message: Incoming) -> None:
        parts = messagelog.jupyter_parts(message.frames)
        if not message.complete:
            self.log.event(epoch, messagelog.oversize(message))
        elif parts is not None:
            stream = channel == "iopub" and messagelog.is_stream(parts)
            for piece in messagelog.pieces(parts) if stream else (parts,):
                self.log.append(epoch, channel, piece, stream=stream)
        if self.log.is_full and self._channels is not None and self._paces:
            self._channels.pause()

    @property
    def _paces(self) -> bool:
        """Whether the process waits when it is not read from.

        Only our own Python kernel does. Others' publishers silently drop what is not taken from
        them: from those everything is read, and the log drops, and says so.
        """
        return not self._spec.argv and self._child is not None and self._child.alive

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
