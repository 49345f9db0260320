"""What we ourselves say to one client of a kernel, in its place among what the kernel says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.errors import SandboxError
from sandbox.kernels.jupytermessages import JupyterMessage, answer
from sandbox.kernels.kernel import Kernel
from sandbox.kernels.models import ExecutionResult
from sandbox.kernels.relay import Relay

MAX_UNHEARD = 2000
"""Messages that a client has not taken; one that has more does not listen."""


@dataclass(frozen=True, slots=True)
class _Due:
    """Something to be said when all up to a message of the kernel has been heard."""

    after: int
    said: JupyterMessage | tuple[str, ExecutionResult]
    """A message, or a cell that has ended: then what the kernel has not said of that itself."""


class ClientAnswers:
    """The answers of ours that one client has yet to hear."""

    def __init__(self, kernel: Kernel, relay: Relay) -> None:
        self._kernel = kernel
        self._log = kernel.events.log
        self._relay = relay
        self._due: deque[_Due] = deque()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._due)

    @property
    def is_overflowing(self) -> bool:
        """Whether there are so many that nobody seems to listen."""
        return len(self._due) > MAX_UNHEARD

    def due(self, position: int) -> Iterator[JupyterMessage]:
        """Those whose turn has come where the kernel's log has been heard up to a position."""
        while self._due and (self._due[0].after <= position or self._log.is_over):
            said = self._due.popleft().said
            if isinstance(said, JupyterMessage):
                yield said
            else:
                yield from self._unsaid(*said)

    def tell(self, message: JupyterMessage) -> None:
        """Say something, before anything that the kernel has not said yet."""
        self._say(_Due(0, message))

    def ended(self, msg_id: str, result: ExecutionResult) -> None:
        """A cell of the client's has ended."""
        self._say(_Due(self._log.end, (msg_id, result)))

    def reply(self, request: JupyterMessage, content: Mapping[str, Any]) -> None:
        """Answer a request in the kernel's place."""
        self.tell(self._relay.reply(request, content))

    def refuse(
        self, message: JupyterMessage, error: SandboxError, *, is_aborted: bool = False
    ) -> None:
        """Answer what was not done, so that nobody waits for it."""
        text = self._kernel.events.shown(f"{error.message} {error.remedy}".rstrip())
        told: dict[str, Any] = {"ename": type(error).__name__, "evalue": text, "traceback": [text]}
        is_cell = message.msg_type == "execute_request"
        if is_cell and not is_aborted:
            self.tell(answer("iopub", "error", told, message.header, self._relay.session))
        if message.msg_type.endswith("_request"):
            content = {"status": "aborted"} if is_aborted else {"status": "error", **told}
            if is_cell:
                content |= {"execution_count": self._kernel.cells.count}
            self.reply(message, content)
        else:
            self.tell(self._relay.note(text, message.header))
        self.tell(self._relay.status("idle", message.header))

    def answer_meanwhile(self, request: JupyterMessage, content: Mapping[str, Any]) -> None:
        """Answer in the kernel's place while a cell runs, after which only it would do that."""
        running = self._kernel.cells.running
        self.tell(self._relay.status("busy", request.header))
        self.reply(request, content)
        self.tell(self._relay.status("idle", request.header))
        if running is not None:
            parent = self._relay.parent_of(running.execution_id)
            self.tell(self._relay.status("busy", parent))

    def _unsaid(self, msg_id: str, result: ExecutionResult) -> Iterator[JupyterMessage]:
        owed = self._relay.owed.pop(msg_id, None)
        if owed is None:
            return
        header = owed.request.header
        reason = self._kernel.events.shown(result.reason or "")
        if reason and result.status != "ok":
            yield self._relay.note(reason, header)
        if not owed.is_replied:
            error = result.error
            content: dict[str, Any] = {
                "status": "ok" if result.status == "ok" else "error",
                "execution_count": result.execution_count or self._kernel.cells.count,
                "ename": error.name if error else result.status,
                "evalue": error.value if error else reason,
                "traceback": [error.traceback] if error else [],
                "payload": [],
                "user_expressions": {},
            }
            yield self._relay.reply(owed.request, content)
        if not owed.is_idle:
            yield self._relay.status("idle", header)

    def _say(self, due: _Due) -> None:
        self._due.append(due)
        self._log.wake()
