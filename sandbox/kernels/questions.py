"""What a kernel is asked besides running cells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.errors import Conflict, QuotaExceeded
from sandbox.kernels.busy import busy
from sandbox.kernels.cells import Cells
from sandbox.kernels.execution import Execution
from sandbox.kernels.messages import KernelMessage, Messages, new_id

ANSWER_TIMEOUT_S = 10.0
BUSY_GRACE_S = 0.2
"""A question waits so long for a cell that runs: most cells end sooner."""
MAX_QUESTIONS = 32

Send = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True, eq=False)
class EndProbe:
    """A question whose answer proves that the kernel is done with all that was asked before it."""

    msg_id: str
    asked_at: float
    """Of the monotonic clock."""
    execution: Execution | None
    """The execution that ran when it was asked."""
    is_idle: bool = False
    is_replied: bool = False

    @property
    def is_answered(self) -> bool:
        """Whether both channels have come to the end of it: each keeps its own order only."""
        return self.is_idle and self.is_replied


class Questions:
    """The questions to one kernel that have no answer yet."""

    def __init__(self, cells: Cells, messages: Messages, send: Send) -> None:
        self.probe: EndProbe | None = None
        """The last probe; None when it was answered."""
        self._kernel_id = cells.kernel_id
        self._cells = cells
        self._messages = messages
        self._send = send
        self._open: dict[str, asyncio.Future[Mapping[str, Any]]] = {}

    async def ask_probe(self, execution: Execution | None) -> None:
        """Send a probe behind an execution; it takes the place of the one before.

        Raises:
            LinkLost: The link ended.
        """
        probe = self.probe = EndProbe(new_id(), time.monotonic(), execution)
        await self._send(self._messages.request("kernel_info_request", {}, probe.msg_id))

    async def ask(self, msg_type: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask something that the kernel answers between cells, and return the reply's content.

        Raises:
            Conflict: The kernel runs a cell that does not end in an instant, or died, or does not
                come to it in time.
            QuotaExceeded: Too many questions are open.
        """
        if (running := self._cells.running) is not None:
            await running.wait(BUSY_GRACE_S)
        if (running := self._cells.running) is not None:
            raise busy(self._kernel_id, running, self._cells.waiting)
        if len(self._open) >= MAX_QUESTIONS:
            raise QuotaExceeded(f"The kernel {self._kernel_id} has not answered earlier questions.")
        msg_id = new_id()
        answer = self._open[msg_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._send(self._messages.request(msg_type, content, msg_id))
                return await answer
        except TimeoutError as exc:
            raise Conflict(
                f"The kernel {self._kernel_id} is busy: no answer in {ANSWER_TIMEOUT_S:g} s.",
                remedy="Ask again when the running cell has ended, or interrupt it.",
            ) from exc
        finally:
            del self._open[msg_id]

    def take(self, message: KernelMessage) -> bool:
        """Take a message if it answers a question; False when it does not."""
        if self.probe is not None and message.parent_id == self.probe.msg_id:
            if message.channel == "shell":
                self.probe.is_replied = True
            elif message.msg_type == "status":
                self.probe.is_idle |= message.content.get("execution_state") == "idle"
            return True
        answer = self._open.get(message.parent_id)
        if answer is not None and message.channel == "shell" and not answer.done():
            answer.set_result(message.content)
        return answer is not None

    def fail(self) -> None:
        """The kernel died: it will not answer."""
        self.probe = None
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(Conflict(f"The kernel {self._kernel_id} died."))
