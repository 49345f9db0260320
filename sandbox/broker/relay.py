"""Passing a bridge's bytes on, both ways, no faster than they are taken."""

from __future__ import annotations

import asyncio

import anyio

from sandbox.errors import SandboxError
from sandbox.link.link import ByteStream
from sandbox.runtimes.broker.protocol import READ_SIZE, encode_error

IDLE_S = 120.0
"""A link asks for a sign of life far more often, so nobody is there after that long without one."""
CLOSE_TIMEOUT_S = 5.0


async def relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    io: ByteStream,
    *,
    idle_s: float = IDLE_S,
) -> None:
    """Pass bytes on until either side ends, then close the bridge.

    Each direction waits in its own write, so what is in memory is bounded. When the container's
    side ends, what it sent before is still passed on. When the controller's side ends, even for
    sending alone, the bridge is closed: a link over which one cannot send is none.

    Args:
        writer: To the controller; whoever opened it closes it.
    """
    failure: SandboxError | None = None
    is_link = False
    try:
        with anyio.move_on_after(idle_s) as idle:
            async with anyio.create_task_group() as tasks:

                def note_life() -> None:
                    idle.deadline = anyio.current_time() + idle_s

                async def send_in() -> None:
                    try:
                        while data := await reader.read(READ_SIZE):
                            note_life()
                            await io.write(data)
                    except OSError:
                        pass
                    tasks.cancel_scope.cancel()

                tasks.start_soon(send_in)
                try:
                    while data := await io.read():
                        note_life()
                        is_link = True
                        writer.write(data)
                        await writer.drain()
                except OSError:
                    pass
                except SandboxError as exc:
                    failure = exc
                tasks.cancel_scope.cancel()
        if failure is not None and not is_link:
            writer.write(encode_error(failure))
    finally:
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await io.close()
