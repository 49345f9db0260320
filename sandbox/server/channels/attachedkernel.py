"""A kernel as a console uses it: cells one after the other, their outputs as they change."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from pydantic import Field

from sandbox.errorgroups import one_error
from sandbox.errors import Conflict
from sandbox.kernels.execution import Execution
from sandbox.server.channels.channel import Channel, opening, parsed
from sandbox.sessions.session import Session
from sandbox.values import Frozen

MAX_QUEUED = 64
COALESCE_S = 0.02
"""What changes within this time is told at once."""


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


async def serve_kernel(session: Session, channel: Channel) -> None:
    """Serve one request after the other until the other end goes, which interrupts what runs.

    An execution is told as ``{"output": index, "value": …}`` or, when a text grew, ``{"output":
    index, "more": …}``, and ends with ``{"result": …}``, which has no outputs.
    """
    asked = await opening(channel, KernelRequest)
    if asked is None:
        return
    async with session.use():
        kernel_id = asked.kernel_id
        if asked.kernel:
            kernel_id = (await session.kernels.start(asked.kernel)).kernel_id
        console = _Console(session, kernel_id, channel)
        try:
            await console.serve()
        finally:
            if asked.kernel:
                with anyio.move_on_after(5, shield=True):
                    await session.kernels.stop(kernel_id)


class _Console:
    """One channel's use of one kernel."""

    def __init__(self, session: Session, kernel_id: str, channel: Channel) -> None:
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
                with anyio.move_on_after(5, shield=True):
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
                except Conflict as exc:  # the kernel is busy or dead: the next one may do
                    await self._channel.send({"refused": exc.message, "remedy": exc.remedy})

    async def _answer(self, request: ConsoleRequest) -> None:
        if request.execute is not None:
            await self._execute(request.execute, request.timeout_s or None)
        elif request.complete is not None:
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
            version = execution.version
            result = execution.snapshot()
            for index, output in enumerate(result.outputs):
                if index >= len(told) or output != told[index]:
                    before = told[index] if index < len(told) else None
                    await self._channel.send({"output": index, **_change(before, output)})
            told = result.outputs
            if result.status != "running":
                break
            await execution.changed(version)
            await anyio.sleep(COALESCE_S)
        self._running = None
        bare = result.model_copy(update={"outputs": []})
        await self._channel.send(
            {"result": bare.model_dump(mode="json"), "outputs": len(result.outputs)}
        )


def _change(before: dict[str, Any] | None, output: dict[str, Any]) -> dict[str, Any]:
    """What is to be told of an output that was told as ``before``."""
    if before is not None and output.get("output_type") == "stream":
        old, new = before.get("text"), output.get("text")
        same = {**before, "text": new} == output
        if same and isinstance(old, str) and isinstance(new, str) and new.startswith(old):
            return {"more": new[len(old) :]}
    return {"value": output}
