"""Writes the progress of a kernel's executions to the journal, not too often."""

from __future__ import annotations

import asyncio
import logging

import anyio

from sandbox.errors import SandboxError
from sandbox.kernels.execution import Execution
from sandbox.kernels.log import KernelLog
from sandbox.kernels.models import ExecutionJournal

KEEP_INTERVAL_S = 1.0

logger = logging.getLogger(__name__)


class Keeper:
    """Keeps snapshots together with the number of the last message in them.

    Only what the journal has is acknowledged, so that whoever carries on after this controller
    finds every message either in a snapshot or in the log, and never in both.

    Args:
        journal: Where to write.
    """

    def __init__(self, journal: ExecutionJournal) -> None:
        self._journal = journal
        self._changed: dict[str, Execution] = {}
        self._news = asyncio.Event()

    def note(self, execution: Execution | None = None) -> None:
        """There are new messages, and with them perhaps new outputs of an execution."""
        if execution is not None:
            self._changed[execution.execution_id] = execution
        self._news.set()

    def finish(self, execution: Execution, seq: int) -> None:
        """Write the end of an execution at once."""
        self._changed[execution.execution_id] = execution
        if self._write(execution, seq):
            del self._changed[execution.execution_id]
        self._news.set()

    def keep(self, seq: int) -> bool:
        """Write all that is new; False when the journal could not take everything."""
        for execution in tuple(self._changed.values()):
            if self._write(execution, seq):
                del self._changed[execution.execution_id]
        return not self._changed

    async def keep_and_acknowledge(self, log: KernelLog, *, force: bool = False) -> None:
        """Write what is new, then let the supervisor forget it.

        Args:
            log: The kernel's log.
            force: Whether to do so even in a state that a snapshot does not hold wholly, such as
                after a ``clear_output`` that waits for the next output.
        """
        settled = all(e.is_settled or e.is_over for e in self._changed.values())
        if (settled or force) and self.keep(log.seq):
            await log.acknowledge()
        else:
            self._news.set()

    async def run(self, log: KernelLog) -> None:
        """Keep and acknowledge about once a second while there is something new."""
        while True:
            await self._news.wait()
            await anyio.sleep(KEEP_INTERVAL_S)
            self._news.clear()
            await self.keep_and_acknowledge(log)

    def _write(self, execution: Execution, seq: int) -> bool:
        try:
            if execution.is_over:
                self._journal.finished(execution.execution_id, execution.snapshot(), seq)
            else:
                self._journal.progress(execution.execution_id, execution.snapshot(), seq)
        except SandboxError as exc:
            logger.warning("the journal cannot take %s: %s", execution.execution_id, exc)
            return False
        return True
