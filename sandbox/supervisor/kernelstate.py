"""A kernel's variables on their way out and in: from a pipe of the kernel to a stream, and back.

The supervisor moves bytes only; kernels write and load them.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, cast

from sandbox.errors import InfrastructureError, InvalidRequest
from sandbox.link import wire
from sandbox.link.stream import Stream
from sandbox.supervisor.kernelhost import KernelHost
from sandbox.supervisor.pipes import Descriptor
from sandbox.supervisor.requests import answer, whole
from sandbox.supervisor.tasks import alongside

MAX_S = 3600


async def carry_out(kernel: KernelHost, stream: Stream) -> None:
    """Send what a kernel writes of its variables."""
    kernel.check_idle()
    bounds = {
        "total_bytes": whole(stream.request, "total_bytes", 0, 0, 2**62),
        "name_s": whole(stream.request, "name_s", 10, 1, MAX_S),
        "total_s": whole(stream.request, "total_s", 60, 1, MAX_S),
    }
    reading, theirs = _pipe()
    output = Descriptor(reading)
    try:
        async with alongside(_until_reset(stream)):
            await kernel.ask("carry_out", [theirs], **bounds)
            while data := await output.read():
                await stream.send(data, wire.BYTES)
    finally:
        output.close()
    stream.end()


async def carry_in(kernel: KernelHost, stream: Stream) -> None:
    """Let a kernel load what comes, and answer what it says of that."""
    name_s = whole(stream.request, "name_s", 10, 1, MAX_S)
    theirs, writing = _pipe()
    output = Descriptor(writing)
    try:
        async with alongside(_feed(stream, output)):
            report: Any = await kernel.ask("carry_in", [theirs], timeout_s=MAX_S, name_s=name_s)
    finally:
        output.close()
    if not isinstance(report, dict):
        raise InfrastructureError("The kernel does not say what it has loaded.")
    await answer(stream, **cast("dict[str, Any]", report))


def _pipe() -> tuple[int, int]:
    try:
        return os.pipe()
    except OSError as exc:
        raise InfrastructureError("No pipe can be made: too many files are open.") from exc


async def _until_reset(stream: Stream) -> None:
    async for _ in stream:
        pass
    await stream.wait_reset()


async def _feed(stream: Stream, output: Descriptor) -> None:
    """Pass on what comes; then stay, to notice when the caller gives up."""
    async for message in stream:
        if message.tag != wire.BYTES:
            raise InvalidRequest("What a kernel is to load is sent as bytes.")
        with contextlib.suppress(OSError):  # it wants no more
            await output.write(message.data)
    output.close()
    await stream.wait_reset()
