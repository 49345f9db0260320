"""Between the clients of a kernel and the kernel in its sandbox: who asked what, and who hears."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from sandbox.errors import SandboxError
from sandbox.jupyter.composing import Composer, kind_and_id, object_of
from sandbox.jupyter.sandboxedkernel import Ended, Missed, Said, SandboxedKernel
from sandbox.jupyter.signing import JupyterMessage
from sandbox.jupyter.sockets import ClientSockets

MAX_ASKED = 4096
IN_FLIGHT = 256

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Asked:
    """A request of a client."""

    identities: list[bytes]
    header: bytes
    is_execute: bool


class Relay:
    """Carries requests to the kernel, and what it says to those who are concerned.

    Args:
        kernel: Its session stays open as long as the relay is used.
        ended: Told once for each end of the kernel, with its code and why; a client's wish to
            shut down or to restart it has no reason.
        finish: Called when a client wants the kernel to be shut down for good.
    """

    def __init__(
        self,
        kernel: SandboxedKernel,
        composer: Composer,
        ended: Callable[[int, str], None],
        finish: Callable[[], None],
    ) -> None:
        self._kernel = kernel
        self._composer = composer
        self._ended = ended
        self._finish = finish
        self._asked: dict[str, _Asked] = {}
        self._alive = anyio.Event()
        self._alive.set()
        self.sockets: ClientSockets | None = None
        """Where the clients are; what is said without any is lost."""

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

    # --- from clients

    async def take(self, identities: list[bytes], message: JupyterMessage) -> None:
        """Take a client's request."""
        kind, msg_id = kind_and_id(message.header)
        if not kind or not msg_id:
            logger.warning("%s: a message without a type or an id", message.channel)
            return
        if not self.is_alive:
            if kind != "kernel_info_request":  # meant for the process that has gone
                return
            await self.alive()
        asked = _Asked(identities, message.header, kind == "execute_request")
        if kind == "shutdown_request":
            await self._shut_down(asked, message)
        elif kind == "interrupt_request" and message.channel == "control":
            await self._interrupt(asked)
        else:
            if message.channel != "stdin":  # what answers has no answers
                self._asked.pop(msg_id, None)
                self._asked[msg_id] = asked
                if len(self._asked) > MAX_ASKED:
                    del self._asked[next(iter(self._asked))]
            await self._kernel.send(message)

    async def _shut_down(self, asked: _Asked, message: JupyterMessage) -> None:
        is_restart = object_of(message.content).get("restart") is True
        content = {"status": "ok", "restart": is_restart}
        await self._reply(asked, message.channel, "shutdown_reply", content)
        self.end(0)
        if not is_restart:
            self._finish()

    async def _interrupt(self, asked: _Asked) -> None:
        content = {"status": "ok"}
        try:
            await self._kernel.interrupt()
        except SandboxError as exc:
            content = {"status": "error", "ename": "Error", "evalue": exc.message}
        await self._reply(asked, "control", "interrupt_reply", content)

    async def _reply(
        self, asked: _Asked, channel: str, msg_type: str, content: dict[str, object]
    ) -> None:
        if self.sockets is None:
            return
        compose = self._composer.message
        for state in ("busy", "idle"):
            status = compose("iopub", "status", {"execution_state": state}, asked.header)
            await self.sockets.publish(status)
        await self.sockets.answer(
            asked.identities, compose(channel, msg_type, content, asked.header)
        )

    # --- from the kernel

    async def listen(self) -> None:
        """Hand out what the kernel says, until its session ends."""
        async for heard in self._kernel.heard():
            match heard:
                case Ended():
                    self.end(heard.code, heard.reason)
                    if heard.is_for_good:
                        break
                case Missed():
                    await self._tell(f"[{heard.count} messages of the kernel were lost]\n", b"{}")
                case Said():
                    if self.is_alive:
                        await self._hand_out(heard)

    async def _hand_out(self, said: Said) -> None:
        message, asked = said.message, self._asked.get(said.parent_id)
        if self.sockets is None:
            return
        if message.channel == "iopub":
            kind, _ = kind_and_id(message.header)
            if kind == "status" and asked is not None and asked.is_execute:
                await self._tell_denials(message, asked)
            await self.sockets.publish(_answering(message, asked), b"kernel." + kind.encode())
        elif asked is not None:
            await self.sockets.answer(asked.identities, _answering(message, asked))

    async def _tell_denials(self, status: JupyterMessage, asked: _Asked) -> None:
        """Before a cell's end, say what its network was refused: else it is only an error."""
        if object_of(status.content).get("execution_state") == "idle":
            lines = self._kernel.denials()
            if lines:
                await self._tell("".join(f"{line}\n" for line in lines), asked.header)

    async def _tell(self, text: str, parent: bytes) -> None:
        if self.sockets is not None:
            content = {"name": "stderr", "text": text}
            await self.sockets.publish(self._composer.message("iopub", "stream", content, parent))


def _answering(message: JupyterMessage, asked: _Asked | None) -> JupyterMessage:
    """The message with the header of what it answers, as that was asked."""
    if asked is None:
        return message
    return JupyterMessage(
        message.channel,
        message.header,
        asked.header,
        message.metadata,
        message.content,
        message.buffers,
    )
