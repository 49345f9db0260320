"""The sandbox's side of one outgoing connection: bytes of a stream of the link."""

from __future__ import annotations

from sandbox import wire
from sandbox.errors import ProtocolError
from sandbox.link import Stream


class Inbound:
    """A stream of the link read like a socket, with what is peeked at kept.

    Args:
        stream: The stream that the supervisor opened for one connection.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._kept = bytearray()
        self._is_over = False

    @property
    def kept(self) -> bytes:
        """What has come and was not taken yet."""
        return bytes(self._kept)

    async def more(self) -> bool:
        """Wait until more has come; false at the end.

        Raises:
            SandboxError: The connection was given up inside, or the link ended.
            ProtocolError: Something else than bytes came.
        """
        data = await self._receive()
        self._kept += data
        return bool(data)

    def take(self, size: int) -> bytes:
        """Take bytes that have come."""
        taken = bytes(self._kept[:size])
        del self._kept[:size]
        return taken

    async def read(self) -> bytes:
        """The next bytes, as many as there are; empty at the end."""
        return self.take(len(self._kept)) if self._kept else await self._receive()

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
            message = await self._stream.receive()
            if message is None:
                self._is_over = True
            elif message.tag != wire.BYTES:
                raise ProtocolError("an outgoing connection carries something else than bytes")
            elif message.data:
                return message.data
        return b""
