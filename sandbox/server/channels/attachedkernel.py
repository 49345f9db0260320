"""A kernel as a console uses it: cells one after the other, their outputs as they change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from pydantic import Field

from sandbox.errorgroups import one_error
from sandbox.errors import Conflict, NotPermitted, SandboxError
from sandbox.kernels.execution import Execution
from sandbox.policy import Policy
from sandbox.server.channels.channel import Channel, opening, parsed
from sandbox.sessions.session import Session
from sandbox.values import Frozen

MAX_QUEUED = 64
COALESCE_S = 0.02
"""What changes within this time is told at once."""
SHARE = 0.2
"""The part of the time that goes into looking at what has changed, however much is shown."""
CLOSE_S = 5.0


class KernelRequest(Frozen, strict=True):
    """Which kernel is meant."""

    kernel: str = ""
    """A kernelspec, of which one is started for this channel alone; else there is one already."""
    kernel_id: str = ""
    """Its id; empty for the session's default one."""


class ConsoleRequest(Frozen, strict=True):
    """One thing that is wanted of the kernel."""

    execute: str | None = None
    """Code to run."""
    timeout_s: float = Field(0, ge=0, allow_inf_nan=False)
    complete: str | None = None
    """Code whose end the cursor is at."""
    check: str | None = None
    """Code of which it is asked whether more must come."""
    interrupt: bool = False
    """Interrupt what runs; it does not wait for its turn."""


Permit = Callable[[Policy, str], None]
"""Refuses a tool that a policy does not allow."""


async def serve_kernel(session: Session, channel: Channel, permit: Permit | None = None) -> None:
    """Serve one request after the other until the other end goes, which interrupts what runs.

    An execution is told as ``{"output": index, "value": …}`` or, when a text grew, ``{"output":
    index, "more": …}``, and ends with ``{"result": …}``, which has no outputs.

    Args:
        permit: Asked about each tool that does the same as what is wanted beside running code;
            all is permitted when None.
    """
    asked = await opening(channel, KernelRequest)
    if asked is None:
        return
    async with session.use():
        kernel_id = asked.kernel_id
        if asked.kernel:
            if permit:
                permit(session.policy, "start_kernel")
            kernel_id = (await session.kernels.start(asked.kernel)).kernel_id
        console = _Console(session, kernel_id, channel, permit)
        try:
            await console.serve()
        finally:
            if asked.kernel:
                with anyio.move_on_after(CLOSE_S, shield=True), suppress(SandboxError):
                    await session.kernels.stop(kernel_id)


class _Console:
    """One channel's use of one kernel."""

    def __init__(
        self, session: Session, kernel_id: str, channel: Channel, permit: Permit | None
    ) -> None:
        self._policy = session.policy
        self._permit = permit
        self._kernels = session.kernels
        self._kernel_id = kernel_id
        self._channel = channel
        self._running: Execution | None = None

    async def serve(self) -> None:
        """Serve it until the other end has gone."""
        send, receive = anyio.create_memory_object_stream[ConsoleRequest](MAX_QUEUED)
        try:
            async with one_error() as tasks:
                tasks.start_soon(self._hear, send, tasks.cancel_scope)
                await self._answer_all(receive)
        finally:
            if self._running is not None and not self._running.is_over:
                with anyio.move_on_after(CLOSE_S, shield=True), suppress(SandboxError):
                    await self._running.cancel()

    async def _hear(
        self, requests: MemoryObjectSendStream[ConsoleRequest], scope: anyio.CancelScope
    ) -> None:
        with requests:
            while (message := await self._channel.receive()) is not None:
                request = parsed(message, ConsoleRequest)
                if request.interrupt:
                    if self._running is not None:
                        await self._running.cancel()
                    continue
                try:
                    requests.send_nowait(request)
                except anyio.WouldBlock as exc:
                    raise Conflict(f"{MAX_QUEUED} requests wait already.") from exc
        scope.cancel()

    async def _answer_all(self, requests: MemoryObjectReceiveStream[ConsoleRequest]) -> None:
        with requests:
            async for request in requests:
                try:
                    await self._answer(request)
                except (Conflict, NotPermitted) as exc:
                    # The kernel is busy or dead, or that is not allowed: the next one may do.
                    await self._channel.send({"refused": exc.message, "remedy": exc.remedy})

    async def _answer(self, request: ConsoleRequest) -> None:
        if request.execute is not None:
            await self._execute(request.execute, request.timeout_s or None)
        elif request.complete is not None:
            if self._permit:
                self._permit(self._policy, "complete_code")
            found = await self._kernels.complete(request.complete, kernel_id=self._kernel_id)
            await self._channel.send({"completion": found.model_dump()})
        elif request.check is not None:
            checked = await self._kernels.check(request.check, kernel_id=self._kernel_id)
            await self._channel.send({"completeness": checked.model_dump()})

    async def _execute(self, code: str, timeout_s: float | None) -> None:
        execution = self._running = await self._kernels.execute(
            code, kernel_id=self._kernel_id, timeout_s=timeout_s
        )
        told: list[dict[str, Any]] = []
        while True:
            version, began = execution.version, time.perf_counter()
            result = execution.snapshot()
            changes = list(_changes(told, result.outputs))
            work_s = time.perf_counter() - began
            for change in changes:
                await self._channel.send(change)
            told = result.outputs
            if result.status != "running":
                break
            await execution.changed(version)
            await anyio.sleep(max(COALESCE_S, work_s / SHARE))
        self._running = None
        bare = result.model_copy(update={"outputs": []})
        await self._channel.send(
            {"result": bare.model_dump(mode="json"), "outputs": len(result.outputs)}
        )


def _changes(
    before: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """What is to be told of outputs, some of which were told as they were before."""
    for index, output in enumerate(outputs):
        was = before[index] if index < len(before) else None
        if output != was:
            yield {"output": index, **_change(was, output)}


def _change(before: dict[str, Any] | None, output: dict[str, Any]) -> dict[str, Any]:
    """What is to be told of an output that was told as ``before``."""
    if before is not None and output.get("output_type") == "stream":
        old, new = before.get("text"), output.get("text")
        same = {**before, "text": new} == output
        if same and isinstance(old, str) and isinstance(new, str) and new.startswith(old):
            return {"more": new[len(old) :]}
    return {"value": output}
