"""The processes of kernels: how one is started, and what there is of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sandbox.errors import InfrastructureError
from sandbox.supervisor.channels import CHANNEL_PORTS, Channels
from sandbox.supervisor.children import Child, Children
from sandbox.supervisor.ipython import KernelStart
from sandbox.supervisor.kernelspecs import InstalledKernel
from sandbox.supervisor.pairchannels import PairChannels
from sandbox.supervisor.pipes import Descriptor
from sandbox.supervisor.zmtp import Incoming


@dataclass(frozen=True, slots=True)
class Launcher:
    """How a kernel process is started."""

    children: Children
    fork: Callable[[KernelStart], Awaitable[int]]
    env: Mapping[str, str]
    state_dir: str

    async def launch(self, spec: InstalledKernel, cwd: str, on_message: Received) -> Process:
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

    async def _fork(self, cwd: str, on_message: Received) -> Process:
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
    accepted: asyncio.Future[int] = field(default_factory=asyncio.Future[int])
    """Its epoch, once it is the kernel's; 0 when it never will be."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nothing more comes from it."""


Received = Callable[[str, Incoming], None]
Launch = Callable[[Received], Awaitable[Process]]
"""Starts a process, given what takes its messages."""
