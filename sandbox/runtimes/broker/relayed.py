"""The byte stream of a container's bridge, as a broker passes it on."""

from __future__ import annotations

import asyncio

from sandbox.errors import ProtocolError
from sandbox.runtimes.broker import protocol


class BrokerStream:
    """What is left of a connection once the answer to ``connect`` has come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._begun = False

    async def read(self) -> bytes:
        """The next bytes; empty when the bridge has ended, and once closed.

        Raises:
            SandboxError: Why the bridge could not be started.
            OSError: The connection to the broker broke.
        """
        data = await self._reader.read(protocol.READ_SIZE)
        if not self._begun and data.startswith(protocol.ERROR_BEGINS):
            while protocol.END not in data and len(data) < protocol.MAX_REQUEST_BYTES:
                if not (more := await self._reader.read(protocol.READ_SIZE)):
                    return b""
                data += more
            protocol.decode_answer(None, data.partition(protocol.END)[0])
            raise ProtocolError("The engine broker answered twice.")
        self._begun = True
        return data

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting while it is not taken.

        Raises:
            OSError: The connection to the broker broke, or is closed.
        """
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Drop the connection, upon which the broker ends the bridge."""
        self._writer.transport.abort()
