"""The sandbox's side of one outgoing connection: bytes of a stream of the link."""

from __future__ import annotations

import asyncio

from sandbox.errors import ProtocolError
from sandbox.link import wire
from sandbox.link.link import Stream


class Inbound:
    """A stream of the link read like a socket, with what is peeked at kept.

    Each piece that is received lets everything else go on before it: a full inbox is no reason to
    hold up others.
    """

    def __init__(self, stream: Stream, session_id: str) -> None:
        self._stream = stream
        self.session_id = session_id
        self.kept = bytearray()
        """What has come and was not taken yet; only read by others."""
        self._is_over = False

    async def more(self) -> bytes:
        """Wait for the next piece, which is kept; empty at the end.

        Raises:
            SandboxError: The connection was given up inside, or the link ended.
            ProtocolError: Something else than bytes came.
        """
        data = await self._receive()
        self.kept += data
        return data

    def take(self, size: int) -> bytes:
        """Take bytes that have come."""
        taken = bytes(self.kept[:size])
        del self.kept[:size]
        return taken

    async def read(self) -> bytes:
        """The next bytes, as many as there are; empty at the end."""
        return self.take(len(self.kept)) if self.kept else await self._receive()

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the other side does not take them."""
        await self._stream.send(data)

    def end(self) -> None:
        """Say that no more comes from outside."""
        self._stream.end()

    async def drained(self) -> bool:
        """Throw away what still comes until the client has ended its side; then True."""
        while await self.read():
            pass
        return True

    async def _receive(self) -> bytes:
        while not self._is_over:
            await asyncio.sleep(0)
            message = await self._stream.receive()
            if message is None:
                self._is_over = True
            elif message.tag != wire.BYTES:
                raise ProtocolError("an outgoing connection carries something else than bytes")
            elif message.data:
                return message.data
        return b""
