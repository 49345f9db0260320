"""Filters: a program of the controller's own that makes something of bytes inside the sandbox.

It is no command of a caller's: it is not noted, listed or counted, and ends with its stream. What
comes of it is as hostile as all that comes out of a sandbox.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from sandbox.errors import ProtocolError
from sandbox.link import wire
from sandbox.link.link import Link

PIECE_BYTES = 64 * 1024


async def lines_of(
    link: Link, argv: Sequence[str], given: bytes, *, timeout_s: float, limit_bytes: int
) -> AsyncGenerator[bytes]:
    """The lines that a program writes to its stdout, as they come, of what it is given to read.

    Args:
        timeout_s: After which it is killed with all that it has started.
        limit_bytes: Of all that it may write.

    Raises:
        SandboxError: It could not be started, or the link ended.
        ProtocolError: It wrote more than it may.
    """
    stream = link.open("process.run", argv=list(argv), timeout_s=timeout_s)
    pending, size = bytearray(), 0
    try:
        for at in range(0, len(given), PIECE_BYTES):
            await stream.send(given[at : at + PIECE_BYTES])
        stream.end()
        async for message in stream:
            if message.tag == wire.JSON:
                return
            if message.tag != wire.BYTES:
                continue  # what it complains of
            size += len(message.data)
            if size > limit_bytes:
                raise ProtocolError("A filter wrote more than it may.")
            *lines, rest = message.data.split(b"\n")
            for line in lines:
                yield bytes(pending) + line
                pending.clear()
            pending += rest
    finally:
        stream.reset()
