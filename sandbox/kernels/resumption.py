"""What an earlier controller left running: carried on where that can be, else ended truthfully."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from sandbox.errors import SandboxError
from sandbox.kernels.answers import Listed
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionRecord, KernelState
from sandbox.kernels.shared import SharedByKernels

Make = Callable[[ExecutionRecord], Execution]

logger = logging.getLogger(__name__)


def resume(
    around: SharedByKernels, make: Make, entries: Mapping[str, Listed]
) -> dict[str, Execution]:
    """Take over the executions that still run, by kernel, and end the others."""
    resumed: dict[str, Execution] = {}
    for record in around.journal.unfinished(around.session_id):
        entry = entries.get(record.kernel_id)
        if entry is None:
            _end(around, make(record), "lost", "The kernel is gone.")
        elif record.state == "queued":
            unrun = "The controller ended before this cell ran; nothing of it was executed."
            _end(around, make(record), "kept" if entry.alive else "lost", unrun)
        elif record.epoch != entry.epoch or record.kernel_id in resumed:
            _end(around, make(record), "restarted", "The kernel was restarted under the cell.")
        else:
            resumed[record.kernel_id] = make(record)
    return resumed


def abandon(around: SharedByKernels, make: Make, reason: str) -> None:
    """End what only the journal knows of."""
    for record in around.journal.unfinished(around.session_id):
        _end(around, make(record), "lost", reason)


def _end(around: SharedByKernels, execution: Execution, state: KernelState, reason: str) -> None:
    execution.end("lost", state, reason)
    record = execution.record
    try:
        around.journal.finished(record.execution_id, execution.snapshot(), record.seq)
    except SandboxError as exc:  # the next controller finds it unfinished, and ends it so again
        logger.error("the journal cannot take the end of %s: %s", record.execution_id, exc)
    around.recent.add(execution)
