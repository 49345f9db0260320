"""A client of Jupyter and a kernel: what it says goes to the kernel as everything here does.

A client of a Jupyter Server speaks to the kernel's own sockets. Here each of its messages is taken
for what it means: a cell becomes an execution like any other (noted in the journal, bounded by the
policy, listed), interrupts and restarts are ours, the rest is passed on under an id of ours. What
the kernel says is read from its log: so a client hears the cells of all others, and one that reads
slowly misses something, is told so, and slows nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from sandbox.errorgroups import one_error
from sandbox.errors import InvalidRequest, QuotaExceeded, SandboxError
from sandbox.kernels.busy import meanwhile
from sandbox.kernels.clientanswers import ClientAnswers
from sandbox.kernels.clientcells import ClientCells
from sandbox.kernels.jupytermessages import JupyterMessage
from sandbox.kernels.kernels import Kernels
from sandbox.kernels.messages import new_id
from sandbox.kernels.origins import Origin
from sandbox.kernels.relay import Relay, described
from sandbox.link import wire

MAX_OPEN = 256
"""Requests of one client that the kernel has not come to yet."""
MAX_CONTROLS = 8
"""Interrupts, restarts and inputs under way."""
MAX_INPUT = 64 * 1024

PASSED_ON = frozenset(
    (
        "complete_request",
        "inspect_request",
        "is_complete_request",
        "history_request",
        "comm_info_request",
        "kernel_info_request",
        "usage_request",
        "comm_open",
        "comm_msg",
        "comm_close",
    )
)
TOOLS = {
    "complete_request": "complete_code",
    "inspect_request": "inspect_code",
    "interrupt_request": "interrupt_kernel",
}
"""The tools that do the same as a message; all other messages are a part of running code."""

Permit = Callable[[str], None]
"""Raises when a tool may not be used."""


class Conversation:
    """What one client says to a kernel, and hears of it. Made by :func:`converse`."""

    def __init__(
        self,
        kernels: Kernels,
        kernel_id: str,
        tasks: TaskGroup,
        permit: Permit,
        client: str,
        position: int | None,
        *,
        answers_input: bool,
    ) -> None:
        self._kernels = kernels
        self._kernel = kernels.kernel(kernel_id)
        self._log = self._kernel.events.log
        self._tasks = tasks
        self._permit = permit
        self._client = client or new_id()
        self._relay = Relay(self._kernel, self._client, kernels.ran)
        self._answers = ClientAnswers(self._kernel, self._relay)
        self._cells = ClientCells(
            kernels,
            self._kernel,
            self._relay,
            self._answers,
            self._client,
            answers_input=answers_input,
        )
        self.position = self._log.end if position is None else min(position, self._log.end)
        """The last message of the kernel's log that was heard; another conversation can begin
        there."""
        self._questions: deque[JupyterMessage] = deque()
        self._asked = anyio.Event()
        self._controls = 0
        self._is_closed = False

    async def send(self, message: JupyterMessage) -> None:
        """Take a message of the client. What comes of it is heard in :meth:`messages`, also that it
        was refused; the kernel is not waited for."""
        kind = message.msg_type
        try:
            self._permit(TOOLS.get(kind, "execute_code"))
            if message.channel == "stdin":
                self._take_input(message)
            elif kind == "execute_request" and message.channel == "shell":
                self._cells.put(message)
            elif kind in PASSED_ON:
                self._ask(message)
            elif kind == "interrupt_request":
                self._start(message, self._interrupt)
            elif kind == "shutdown_request":
                self._shut_down(message)
            else:
                raise InvalidRequest(f"{kind!r:.80} means nothing on {message.channel} here.")
        except SandboxError as exc:
            self._answers.refuse(message, exc)
        await anyio.lowlevel.checkpoint()

    async def messages(self) -> AsyncGenerator[JupyterMessage]:
        """All that the kernel says, to whomever, and the replies to the client's own requests,
        until the kernel is stopped, or the client is so far behind that it seems not to listen."""
        if self._kernel.info().state == "dead":
            yield self._relay.status("dead")
        while not self._is_closed and not self._answers.is_overflowing:
            for message in self._answers.due(self.position):
                yield message
            is_over, before = self._log.is_over, self.position
            got = self._kernel.events.read(self.position)
            if got.missed:
                self._relay.forget_questions()
                text = f"This client is too slow: {got.missed} messages of the kernel were missed."
                yield self._relay.note(text, {})
            for logged in got.entries:
                for message in self._relay.translated(logged):
                    yield message
            self.position = got.position
            if self.position > before or self._answers.count:
                continue
            if is_over and not self._controls and self._cells.running is None:
                yield self._relay.status("dead")
                return
            await self._log.changed()

    async def work(self) -> None:
        """Run what the client wants, until cancelled."""
        self._tasks.start_soon(self._cells.run)
        while True:
            while not self._questions:
                self._asked = anyio.Event()
                await self._asked.wait()
            message = self._questions.popleft()
            msg_id = new_id()
            self._kernel.origins.note(msg_id, Origin(self._client, message.header))
            self._relay.owe(msg_id, message)
            try:
                await self._kernel.say(
                    message.msg_type,
                    message.content_json,
                    msg_id,
                    channel=message.channel,
                    metadata=message.metadata,
                    buffers=message.buffers,
                )
            except SandboxError as exc:
                self._relay.owed.pop(msg_id, None)
                self._answers.refuse(message, exc)

    def close(self) -> None:
        """End it: cells that have not begun are left out, and nobody gives input any more."""
        self._is_closed = True
        self._questions.clear()
        self._cells.close()
        self._log.wake()

    # --- what is not a cell

    def _ask(self, message: JupyterMessage) -> None:
        if self._kernel.cells.running and (answer := self._meanwhile(message)) is not None:
            self._answers.answer_meanwhile(message, answer)
            return
        if self._relay.open_questions + len(self._questions) >= MAX_OPEN:
            raise QuotaExceeded(f"The kernel has not come to {MAX_OPEN} requests yet.")
        self._questions.append(message)
        self._asked.set()

    def _meanwhile(self, message: JupyterMessage) -> dict[str, Any] | None:
        """What to answer while a cell runs; None when the kernel is to, after that."""
        if message.msg_type == "kernel_info_request":
            known = self._kernel.self_description
            return described(known) if known else None
        return meanwhile(message.msg_type, message.content)

    def _take_input(self, message: JupyterMessage) -> None:
        value, asking = message.content.get("value"), self._relay.asking
        running = self._cells.running
        if message.msg_type != "input_reply" or not isinstance(value, str):
            raise InvalidRequest("On stdin an input_reply is sent, whose value is a text.")
        if len(value) > MAX_INPUT:
            raise InvalidRequest(f"An input has at most {MAX_INPUT} characters.")
        if asking is None or running is None or running.execution_id != asking[0]:
            return  # nothing is asked any more, as after an interrupt
        self._relay.asking = None
        running.awaits_input = False
        content = wire.encode_json({"value": value})

        async def give() -> None:
            await self._kernel.say(
                "input_reply", content, new_id(), channel="stdin", parent_id=asking[1]
            )

        self._start(message, give)

    async def _interrupt(self) -> None:
        await self._kernels.interrupt(self._kernel.kernel_id)

    def _shut_down(self, message: JupyterMessage) -> None:
        is_restart = message.content.get("restart") is True
        self._permit("restart_kernel" if is_restart else "stop_kernel")

        async def shut_down() -> None:
            end = self._kernels.restart if is_restart else self._kernels.stop
            await end(self._kernel.kernel_id)

        self._start(message, shut_down, restart=is_restart)

    def _start(
        self, message: JupyterMessage, work: Callable[[], Awaitable[None]], **told: object
    ) -> None:
        """Do something that takes its time, and answer when it is done."""
        if self._controls >= MAX_CONTROLS:
            raise QuotaExceeded(f"{MAX_CONTROLS} requests like this are under way already.")

        async def run() -> None:
            try:
                await work()
            except SandboxError as exc:
                self._answers.refuse(message, exc)
            else:
                if message.channel != "stdin":
                    self._answers.reply(message, {"status": "ok", **told})
            finally:
                self._controls -= 1
                self._log.wake()

        self._controls += 1
        self._tasks.start_soon(run)


def _permit_all(_tool: str) -> None:
    """Refuse nothing."""


@asynccontextmanager
async def converse(
    kernels: Kernels,
    kernel_id: str = "",
    *,
    permit: Permit = _permit_all,
    client: str = "",
    position: int | None = None,
    answers_input: bool = True,
) -> AsyncGenerator[Conversation]:
    """A conversation with a kernel, until the end of the block.

    Args:
        permit: Asked about the tool that does the same as a message; raises when that is refused.
        client: Tells the client from all others, across several of its conversations; made up
            when empty.
        position: Where in the kernel's log it begins: at its end when None.
        answers_input: Whether a cell of the client's may ask for input.

    Raises:
        NotFound: There is no such kernel.
    """
    async with one_error() as tasks:
        conversation = Conversation(
            kernels, kernel_id, tasks, permit, client, position, answers_input=answers_input
        )
        tasks.start_soon(conversation.work)
        try:
            yield conversation
        finally:
            conversation.close()
            tasks.cancel_scope.cancel()
