"""What all kernels of a session share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import anyio

from sandbox.bulkheads.overruns import Overruns
from sandbox.errors import SandboxError
from sandbox.kernels.events import SESSION_BYTES
from sandbox.kernels.execution import Execution
from sandbox.kernels.messages import Messages
from sandbox.kernels.models import ExecutionJournal
from sandbox.outputs.eventlog import Budget
from sandbox.outputs.redaction import Redactor

MAX_EXECUTIONS = 64
MAX_BYTES = 32 * 1024 * 1024
OOM_PROBE_TIMEOUT_S = 2.0

LateListener = Callable[[Execution], None]
"""Called with an execution each time it shows something after its end; it must return at once."""
OomProbe = Callable[[], Awaitable[bool | None]]

logger = logging.getLogger(__name__)


class Recent:
    """The ended executions of a session that are still in memory; the others are in the journal."""

    def __init__(self) -> None:
        self._executions: dict[str, tuple[Execution, int]] = {}
        self._held: WeakValueDictionary[str, Execution] = WeakValueDictionary()
        """Also those that were let go of here and somebody else has."""

    def add(self, execution: Execution) -> None:
        """Keep it as the latest one, and let go of those that nothing came of for longest when
        there are too many."""
        kept = self._executions
        kept.pop(execution.execution_id, None)
        self._held[execution.execution_id] = execution
        kept[execution.execution_id] = execution, execution.size_bytes
        while len(kept) > MAX_EXECUTIONS or (
            len(kept) > 1 and sum(size for _, size in kept.values()) > MAX_BYTES
        ):
            del kept[next(iter(kept))]

    def get(self, execution_id: str) -> Execution | None:
        """An execution by its id; None when it is not in memory."""
        return self._held.get(execution_id)

    def of_kernel(self, kernel_id: str) -> Iterator[Execution]:
        """Those of one kernel."""
        return (e for e, _ in self._executions.values() if e.record.kernel_id == kernel_id)


@dataclass(frozen=True, slots=True)
class SharedByKernels:
    """What the kernels of one session have in common."""

    session_id: str
    journal: ExecutionJournal
    redactor: Redactor
    overruns: Overruns
    grace_s: float
    """How long a cell may take to heed an interrupt before its kernel is restarted."""
    oom_probe: OomProbe | None
    output_bytes: int = 0
    """How much a cell may show."""
    late_listeners: list[LateListener] = field(default_factory=list[LateListener])
    messages: Messages = field(default_factory=Messages)
    recent: Recent = field(default_factory=Recent)
    budget: Budget = field(default_factory=lambda: Budget(SESSION_BYTES))
    """What their logs keep together."""

    def recalled(self, execution_id: str) -> Execution | None:
        """An execution that has ended and is in the journal only, so that it can show more; None
        when there is none, or the journal cannot say."""
        try:
            record = self.journal.ended(self.session_id, execution_id)
        except SandboxError as exc:
            logger.warning("the journal cannot tell of %s: %s", execution_id, exc)
            return None
        if record is None or record.snapshot is None:
            return None
        return Execution.ended(record.snapshot, record, self.output_bytes, self.redactor)

    def tell_late(self, execution: Execution) -> None:
        """Tell whoever shows an execution elsewhere that there is more of it."""
        for listener in tuple(self.late_listeners):
            listener(execution)

    async def ran_out_of_memory(self, exit_event: Mapping[str, Any]) -> bool:
        """Whether that is why a kernel has exited; the engine is asked if nobody inside knows."""
        oom = exit_event.get("oom")
        if not isinstance(oom, bool) and self.oom_probe is not None:
            with anyio.move_on_after(OOM_PROBE_TIMEOUT_S):
                try:
                    oom = await self.oom_probe()
                except SandboxError as exc:
                    logger.warning("cannot tell why a kernel of %s died: %s", self.session_id, exc)
        return oom is True
