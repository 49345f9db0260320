"""Between the clients of a kernel and the kernel in its sandbox: who asked what, and who hears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from sandbox.jupyter.sandboxedkernel import Ended, SandboxedKernel
from sandbox.jupyter.sockets import ClientSockets
from sandbox.kernels.jupytermessages import JupyterMessage, answer

MAX_ASKED = 4096
SESSION = "sandbox"
"""Stands in the headers of what the bridge says itself."""
DIED = 1


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request of a client."""

    identities: list[bytes]
    is_cell: bool


class Relay:
    """Carries requests to the kernel, and what it says to those who are concerned.

    Args:
        ended: Told once for each end of the kernel, with its code and why; a client's wish to
            shut down or to restart it has no reason.
        finish: Called when a client wants the kernel to be shut down for good.
    """

    def __init__(
        self,
        kernel: SandboxedKernel,
        sockets: ClientSockets,
        ended: Callable[[int, str], None],
        finish: Callable[[], None],
    ) -> None:
        self._kernel = kernel
        self._ended = ended
        self._finish = finish
        self._asked: dict[str, _Asked] = {}
        self._alive = anyio.Event()
        self._alive.set()
        self.sockets = sockets
        """Where the clients are."""

    @property
    def is_alive(self) -> bool:
        """Whether the kernel runs."""
        return self._alive.is_set()

    async def alive(self) -> None:
        """Return while the kernel runs; wait while it does not."""
        await self._alive.wait()

    def begin(self) -> None:
        """A new process of the kernel answers."""
        self._asked.clear()
        self._alive.set()

    def end(self, code: int, reason: str = "") -> None:
        """The kernel runs no more; harmless when that is known."""
        if self.is_alive:
            self._alive = anyio.Event()
            self._ended(code, reason)

    async def take(self, identities: list[bytes], message: JupyterMessage) -> None:
        """Take a client's request."""
        if not self.is_alive:
            if message.msg_type != "kernel_info_request":  # meant for the process that has gone
                return
            await self.alive()
        if message.msg_type == "shutdown_request":
            await self._shut_down(identities, message)
            return
        if message.channel != "stdin":  # what comes there answers, and has no answers
            self._asked.pop(message.msg_id, None)
            is_cell = message.msg_type == "execute_request"
            self._asked[message.msg_id] = _Asked(identities, is_cell)
            if len(self._asked) > MAX_ASKED:
                del self._asked[next(iter(self._asked))]
        await self._kernel.send(message)

    async def listen(self) -> None:
        """Hand out what the kernel says, until its session ends."""
        async for heard in self._kernel.heard():
            if isinstance(heard, Ended):
                self.end(DIED, heard.reason)
                if heard.is_for_good:
                    return
            elif self.is_alive:
                await self._hand_out(heard)

    async def _shut_down(self, identities: list[bytes], request: JupyterMessage) -> None:
        is_restart = request.content.get("restart") is True
        content = {"status": "ok", "restart": is_restart}
        reply = answer(request.channel, "shutdown_reply", content, request.header, SESSION)
        await self.sockets.answer(identities, reply)
        self.end(0)
        if not is_restart:
            self._finish()

    async def _hand_out(self, message: JupyterMessage) -> None:
        asked = self._asked.get(message.parent_header.get("msg_id", ""))
        if message.channel != "iopub":
            if asked is not None:
                await self.sockets.answer(asked.identities, message)
            return
        is_cells_status = asked is not None and asked.is_cell and message.msg_type == "status"
        if is_cells_status and message.content.get("execution_state") == "idle":
            await self._tell_denials(message)
        await self.sockets.publish(message)

    async def _tell_denials(self, end: JupyterMessage) -> None:
        """Before a cell's end, say what its network was refused: else it is only an error."""
        if lines := self._kernel.denials():
            content = {"name": "stderr", "text": "".join(f"{line}\n" for line in lines)}
            told = answer("iopub", "stream", content, end.parent_header, SESSION)
            await self.sockets.publish(told)
