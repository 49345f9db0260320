"""The four sockets of one kernel process, and the moment from which nothing it says is missed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping

from sandbox.errors import InfrastructureError, ProtocolError
from sandbox.link import wire
from sandbox.supervisor.messagelog import DELIMITER, jupyter_parts
from sandbox.supervisor.pipes import Descriptor
from sandbox.supervisor.zmtp import Incoming, ZmtpConnection

CHANNEL_PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
SOCKETS = {"iopub": "SUB", "shell": "DEALER", "control": "DEALER", "stdin": "DEALER"}
POLL_S = 0.002
ASK_AGAIN_S = 0.05
OUTPUT_TAIL_BYTES = 4000


class Channels:
    """The connections to one kernel process.

    Args:
        output: What the process writes to its own stdout and stderr.
    """

    def __init__(
        self,
        endpoints: Mapping[str, str],
        output: Descriptor,
        on_message: Callable[[str, Incoming], None],
    ) -> None:
        self._output = output
        self._said = b""
        self._endpoints = endpoints
        self._on_message = on_message
        self._connections: dict[str, ZmtpConnection] = {}
        self._is_open = False
        self._session = os.urandom(8).hex()
        self._serial = 0
        self._answered = False
        self._heard = False
        self._changed = asyncio.Event()

    async def open(self, alive: Callable[[], bool]) -> None:
        """Connect, and wait until the kernel answers and its iopub messages arrive here.

        Raises:
            InfrastructureError: The process ended, or is not a kernel.
        """
        for channel, kind in SOCKETS.items():
            await self._connect(channel, kind, alive)
        for connection in self._connections.values():
            await connection.ready()
        # A publisher knows of a subscriber only once it has read its wish, and tells nobody. So
        # ask for something that is published, until an answer comes both ways.
        while not (self._answered and self._heard):
            self.send_message("shell", "kernel_info_request")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_S):
                    while not (self._answered and self._heard):
                        self._changed.clear()
                        await self._changed.wait()
            if not alive():
                raise InfrastructureError("The kernel ended before it was ready.")
        self._is_open = True

    @property
    def may_have_spawned(self) -> bool:
        """Whether a cell may have started processes: of these kernels nobody knows."""
        return True

    @property
    def said(self) -> str:
        """The last that the process has written to its own stdout and stderr."""
        return self._said.decode("utf-8", "replace").strip()

    async def lost(self) -> None:
        """Keep what the process writes; its sockets are not missed before it has ended."""
        while data := await self._output.read():
            self._said = (self._said + data)[-OUTPUT_TAIL_BYTES:]
        await asyncio.Event().wait()

    async def send(self, channel: str, parts: list[bytes]) -> None:
        """Send a Jupyter message, given as its parts after the delimiter."""
        await self._connections[channel].send([DELIMITER, *parts])

    def send_message(self, channel: str, msg_type: str) -> None:
        """Send a message of the supervisor's own, without content."""
        self._serial += 1
        header = {
            "msg_id": f"{self._session}-{self._serial}",
            "msg_type": msg_type,
            "session": self._session,
            "username": "supervisor",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "version": "5.3",
        }
        raw = json.dumps(header).encode()
        self._connections[channel].send_now([DELIMITER, b"", raw, b"{}", b"{}", b"{}"])

    def pause(self) -> None:
        """Stop reading all channels."""
        for connection in self._connections.values():
            connection.pause()

    def resume(self) -> None:
        """Read all channels on."""
        for connection in self._connections.values():
            connection.resume()

    async def drained(self, timeout_s: float) -> None:
        """After the process's end: wait until what it had sent is read, as far as it comes."""
        self.resume()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for connection in tuple(self._connections.values()):
                    await connection.wait_lost()

    def close(self) -> None:
        """Close all connections."""
        self._output.close()
        for connection in self._connections.values():
            connection.close()

    async def _connect(self, channel: str, kind: str, alive: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        address = self._endpoints[channel].replace("@", "\0", 1)
        while True:
            # Under one name on all of them: a kernel asks for input on ``stdin`` of whoever has
            # sent the cell on ``shell``.
            connection = ZmtpConnection(
                kind, lambda message: self._received(channel, message), self._session.encode()
            )
            try:
                await loop.create_unix_connection(lambda made=connection: made, address)
            except OSError as exc:
                if not alive():
                    raise InfrastructureError("The kernel ended before it was ready.") from exc
                await asyncio.sleep(POLL_S)
            else:
                self._connections[channel] = connection
                return

    def _received(self, channel: str, message: Incoming) -> None:
        if self._is_open:
            self._on_message(channel, message)
            return
        parts = jupyter_parts(message.frames) or []
        if channel == "shell":
            self._answered = True
        elif channel == "iopub" and parts and self._is_idle(parts):
            self._heard = True
        self._changed.set()

    def _is_idle(self, parts: list[bytes]) -> bool:
        """Whether this is the end of what our latest question started."""
        try:
            parent, content = wire.decode_json(parts[2]), wire.decode_json(parts[4])
        except ProtocolError:
            return False
        latest = f"{self._session}-{self._serial}"
        return parent.get("msg_id") == latest and content.get("execution_state") == "idle"
