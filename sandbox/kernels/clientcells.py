"""The cells of one client of a kernel: one after the other, each an execution like any other."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

import anyio

from sandbox.errors import Conflict, InvalidRequest, QuotaExceeded, SandboxError
from sandbox.kernels.clientanswers import ClientAnswers
from sandbox.kernels.execution import Execution
from sandbox.kernels.jupytermessages import JupyterMessage
from sandbox.kernels.kernel import Kernel
from sandbox.kernels.kernels import Kernels
from sandbox.kernels.messages import CellOptions, new_id
from sandbox.kernels.origins import Origin
from sandbox.kernels.relay import Relay

MAX_CELLS = 1000
"""Cells of one client that wait for their turn, as when a whole notebook is run."""
MAX_CELLS_BYTES = 16 * 1024 * 1024
MAX_EXPRESSIONS = 64


class ClientCells:
    """A client's queue; :meth:`run` must be running.

    One cell at a time is handed to the kernel, where those of others wait too. So a client that
    runs a long notebook lets others in between, and what stands behind a cell that fails can be
    left out without any doubt whether it has begun.
    """

    def __init__(
        self,
        kernels: Kernels,
        kernel: Kernel,
        relay: Relay,
        answers: ClientAnswers,
        client: str,
        *,
        answers_input: bool,
    ) -> None:
        self._kernels = kernels
        self._kernel = kernel
        self._relay = relay
        self._answers = answers
        self._client = client
        self._answers_input = answers_input
        self._waiting: deque[tuple[int, JupyterMessage]] = deque()
        self._waiting_bytes = 0
        self._news = anyio.Event()
        self.running: Execution | None = None
        """The client's cell that the kernel has; it may wait behind those of others."""

    def put(self, message: JupyterMessage) -> None:
        """Take a request at the end of the queue.

        Raises:
            QuotaExceeded: Too many wait already.
        """
        size = self._waiting_bytes + message.size_bytes
        if len(self._waiting) >= MAX_CELLS or size > MAX_CELLS_BYTES:
            raise QuotaExceeded(f"{len(self._waiting)} cells of this client wait already.")
        self._waiting.append((self._relay.cells_sent, message))
        self._waiting_bytes = size
        self._relay.cells_sent += 1
        self._news.set()

    async def run(self) -> None:
        """Run the cells until cancelled."""
        while True:
            while not self._waiting:
                self._news = anyio.Event()
                await self._news.wait()
            _, message = self._waiting.popleft()
            self._waiting_bytes -= message.size_bytes
            msg_id = new_id()
            try:
                execution = self.running = await self._begin(message, msg_id)
            except SandboxError as exc:
                self._relay.owed.pop(msg_id, None)
                self._stop_after(message, self._relay.cells_sent)
                self._answers.refuse(message, exc)
                continue
            if not self._answers_input:
                execution.refuse_input()
            result = await execution.wait()
            self.running = None
            self._relay.asking = None
            # What the client has sent when it knew of the end is not meant to be left out.
            owed, sent = self._relay.owed.get(msg_id), self._relay.cells_sent
            known = None if owed is None else owed.cells_then
            if result.state != "kept":
                known = self._relay.cells_at_end
            self._relay.cells_at_end = None
            self._answers.ended(msg_id, result)  # which also wakes whoever listens
            if result.state != "kept":
                self._abort("The kernel was restarted or lost before this cell ran.", known or sent)
            elif result.status != "ok":
                self._stop_after(message, known or sent)

    def _abort(self, reason: str, before: int) -> None:
        """Leave out those that wait and were sent before the cell of this number, and say so."""
        while self._waiting and self._waiting[0][0] < before:
            _, message = self._waiting.popleft()
            self._waiting_bytes -= message.size_bytes
            self._answers.refuse(message, Conflict(reason), is_aborted=True)

    def close(self) -> None:
        """Leave out all that wait. The one that runs goes on; nobody gives it input any more."""
        self._waiting.clear()
        self._answers_input = False
        if self.running is not None:
            self.running.refuse_input()
            self._kernel.cells.changed()

    async def _begin(self, message: JupyterMessage, msg_id: str) -> Execution:
        content = message.content
        code: object = content.get("code")
        given: object = content.get("user_expressions") or {}
        if not isinstance(code, str):
            raise InvalidRequest("The code of an execute_request is a text.")
        if not isinstance(given, dict):
            raise InvalidRequest("The user_expressions of an execute_request are an object.")
        expressions = cast("dict[str, Any]", given)
        if len(expressions) > MAX_EXPRESSIONS:
            raise InvalidRequest(f"A request has at most {MAX_EXPRESSIONS} user_expressions.")
        options = CellOptions(
            silent=content.get("silent") is True,
            store_history=content.get("store_history", True) is not False,
            user_expressions=expressions,
            allow_stdin=content.get("allow_stdin") is True and self._answers_input,
            metadata=message.metadata,
            hears_late=False,
        )
        self._kernel.origins.note(msg_id, Origin(self._client, message.header))
        self._relay.owe(msg_id, message)
        return await self._kernels.execute(
            code, kernel_id=self._kernel.kernel_id, execution_id=msg_id, options=options
        )

    def _stop_after(self, message: JupyterMessage, before: int) -> None:
        """A cell has failed: those behind it are left out where the client wants that."""
        if message.content.get("stop_on_error", True) is not False:
            self._abort("A cell before this one failed.", before)
