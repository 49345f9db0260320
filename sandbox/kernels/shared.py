"""What all kernels of a session share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

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

OomProbe = Callable[[], Awaitable[bool | None]]

logger = logging.getLogger(__name__)


class Recent:
    """The ended executions of a session that are still in memory; the others are in the journal."""

    def __init__(self) -> None:
        self._executions: dict[str, tuple[Execution, int]] = {}

    def add(self, execution: Execution) -> None:
        """Keep it, or count it anew, and let the oldest go when there are too many."""
        kept = self._executions
        kept[execution.execution_id] = execution, execution.size_bytes
        while len(kept) > MAX_EXECUTIONS or (
            len(kept) > 1 and sum(size for _, size in kept.values()) > MAX_BYTES
        ):
            del kept[next(iter(kept))]

    def get(self, execution_id: str) -> Execution | None:
        """An execution by its id; None when it is not in memory."""
        return self._executions.get(execution_id, (None, 0))[0]

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
    messages: Messages = field(default_factory=Messages)
    recent: Recent = field(default_factory=Recent)
    budget: Budget = field(default_factory=lambda: Budget(SESSION_BYTES))
    """What their logs keep together."""

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
