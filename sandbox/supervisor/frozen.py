"""The way to a frozen process: a socket on which it waits for what becomes of it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

from sandbox.errors import InfrastructureError
from sandbox.link import wire

ASK_TIMEOUT_S = 15.0
_MAX_ANSWER = 4096


class FrozenSocket:
    """Our end of that socket. To close it ends the process."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._asking = asyncio.Lock()

    @classmethod
    def pair(cls) -> tuple[FrozenSocket, int]:
        """A new one, and the descriptor for the process, which is whoever's it is given to.

        Raises:
            InfrastructureError: There are no descriptors left.
        """
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as exc:
            raise InfrastructureError(f"No socket can be made: {exc.strerror}.") from exc
        return cls(ours), theirs.detach()

    async def ask(self, fds: list[int], mark: int) -> Any:
        """Have the process fork itself into a live one; what it answers is hostile.

        Args:
            fds: Handed over, and closed here.

        Raises:
            InfrastructureError: It has ended, or does not answer.
        """
        try:
            async with self._asking, asyncio.timeout(ASK_TIMEOUT_S):
                socket.send_fds(self._socket, [json.dumps({"mark": mark}).encode()], fds)
                data = await asyncio.get_running_loop().sock_recv(self._socket, _MAX_ANSWER)
            return wire.decode_json(data)
        except (OSError, TimeoutError, ValueError) as exc:
            raise InfrastructureError("The checkpoint's process does not answer.") from exc
        finally:
            for fd in fds:
                os.close(fd)

    async def aclose(self) -> None:
        """Close it, once nobody waits for an answer; may be called twice."""
        async with self._asking:
            self._socket.close()
