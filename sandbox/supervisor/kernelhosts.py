"""All kernels of the container, and the operations on them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sandbox.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded, SandboxError
from sandbox.link import wire
from sandbox.link.stream import Message, Stream
from sandbox.supervisor import kernelspecs, kernelstate
from sandbox.supervisor.kernelhost import KernelHost
from sandbox.supervisor.kernelprocess import Launcher
from sandbox.supervisor.requests import answer, flag, identifier, text, whole
from sandbox.supervisor.tasks import Background, alongside

MAX_KERNELS = 64
CHANNELS = frozenset({"shell", "control", "stdin"})
_MAX_SEQ = 2**63


class KernelHosts:
    """All kernels of the container, and the operations on them."""

    def __init__(self, launcher: Launcher, workspace: str, tasks: Background) -> None:
        self._launcher = launcher
        self._workspace = workspace
        self._tasks = tasks
        self._kernels: dict[str, KernelHost] = {}
        self.on_stop: Callable[[str], Awaitable[None]] = _nothing
        """Told of each kernel that was stopped, by its id."""

    def specs(self) -> dict[str, kernelspecs.InstalledKernel]:
        """The kernels that can be started, by name."""
        return kernelspecs.find(kernelspecs.directories(self._workspace))

    def processes(self) -> dict[int, str]:
        """The ids of those that run, by the numbers of their processes."""
        return {kernel.pid: kernel.kernel_id for kernel in self._kernels.values() if kernel.pid}

    async def alarms(self) -> list[str]:
        """The ids of those that have set an alarm."""
        kernels = tuple(self._kernels.values())
        return [kernel.kernel_id for kernel in kernels if await kernel.has_alarm()]

    async def start(self, stream: Stream) -> None:
        """``kernel.start``"""
        request = stream.request
        kernel_id = identifier(request, "kernel_id")
        cwd = os.path.join(self._workspace, text(request, "cwd", ""))
        name = text(request, "name", kernelspecs.NATIVE)
        spec = self.specs().get(name)
        if spec is None:
            raise NotFound(f"There is no kernel named {name!r}.")
        kernel = KernelHost(kernel_id, spec, cwd)
        await self.add(kernel, kernel.start(self._launcher, self._tasks))
        await answer(stream, kernel_id=kernel_id, name=spec.name, **kernel.process())

    async def add(self, kernel: KernelHost, starting: Coroutine[Any, Any, None]) -> None:
        """Have another kernel, once it has started.

        Raises:
            Conflict: There is one of its id.
            QuotaExceeded: There are too many.
        """
        try:
            if kernel.kernel_id in self._kernels:
                raise Conflict(f"The kernel {kernel.kernel_id} exists already.")
            if len(self._kernels) >= MAX_KERNELS:
                raise QuotaExceeded(f"There are {MAX_KERNELS} kernels already.")
        except SandboxError:
            starting.close()
            raise
        self._kernels[kernel.kernel_id] = kernel
        try:
            await self._tasks.finish(starting)
        except Exception:
            self._kernels.pop(kernel.kernel_id, None)
            raise

    async def list(self, stream: Stream) -> None:
        """``kernel.list``"""
        await answer(stream, kernels=[kernel.describe() for kernel in self._kernels.values()])

    async def interrupt(self, stream: Stream) -> None:
        """``kernel.interrupt``"""
        kernel = self.find(stream)
        kernel.interrupt()
        ended = 0
        if flag(stream.request, "expired"):
            await kernel.passed_on_interrupt()
            ended = kernel.end_what_was_started()
        await answer(stream, processes=ended)

    async def restart(self, stream: Stream) -> None:
        """``kernel.restart``"""
        kernel = self.find(stream)
        await self._tasks.finish(kernel.restart(self._launcher, self._tasks))
        await answer(stream, **kernel.process())

    async def stop(self, stream: Stream) -> None:
        """``kernel.stop``"""
        kernel = self.find(stream)
        await self._tasks.finish(kernel.stop())
        self._kernels.pop(kernel.kernel_id, None)
        await self.on_stop(kernel.kernel_id)
        await answer(stream)

    async def evidence(self, stream: Stream) -> None:
        """``kernel.evidence``"""
        await answer(stream, **self.find(stream).evidence())

    async def attach(self, stream: Stream) -> None:
        """``kernel.attach``"""
        kernel = self.find(stream)
        after = whole(stream.request, "after", 0, 0, _MAX_SEQ)
        kernel.log.open()
        try:
            async with alongside(_send_log(kernel, stream, after)):
                async for message in stream:
                    await _take(kernel, message)
        finally:
            kernel.log.close()
        stream.end()

    async def carry_out(self, stream: Stream) -> None:
        """``kernel.carry_out``"""
        await kernelstate.carry_out(self.find(stream), stream)

    async def carry_in(self, stream: Stream) -> None:
        """``kernel.carry_in``"""
        await kernelstate.carry_in(self.find(stream), stream)

    def find(self, stream: Stream) -> KernelHost:
        """The kernel that a request is about.

        Raises:
            NotFound: There is none of that id.
        """
        kernel = self._kernels.get(identifier(stream.request, "kernel_id"))
        if kernel is None:
            raise NotFound("There is no such kernel.")
        return kernel


async def _nothing(_kernel_id: str) -> None:
    """Nobody wants to know."""


async def _send_log(kernel: KernelHost, stream: Stream, after: int) -> None:
    while (entry := await kernel.log.read(after)) is not None:
        after, data = entry
        await stream.send(data, wire.KERNEL)
    stream.end()


async def _take(kernel: KernelHost, message: Message) -> None:
    """Do what the controller says on an attached stream."""
    if message.tag == wire.JSON:
        kernel.log.acknowledge(whole(message.json(), "ack", 0, 0, _MAX_SEQ))
        return
    if message.tag != wire.KERNEL:
        raise InvalidRequest("Only acknowledgements and kernel messages are sent to a kernel.")
    head, *parts = wire.unpack_parts(message.data)
    channel = wire.decode_json(head).get("channel")
    if channel not in CHANNELS:
        raise InvalidRequest("A kernel message goes to shell, control or stdin.")
    await kernel.send(channel, parts)
