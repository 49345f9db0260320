"""Writes the progress of a kernel's executions to the journal, not too often."""

from __future__ import annotations

import logging
from time import thread_time

import anyio

from sandbox.bulkheads.overruns import Overruns
from sandbox.errors import SandboxError, TooMuchWork
from sandbox.kernels.attachment import Attachment
from sandbox.kernels.events import KernelEvents
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionJournal

KEEP_INTERVAL_S = 1.0

logger = logging.getLogger(__name__)


class ProgressWriter:
    """Reads a kernel's log at a pace of its own, and keeps snapshots of what has come.

    Only what the journal has is acknowledged, so that whoever carries on after this controller
    finds every message either in a snapshot or in the supervisor's log, and never in both.
    """

    def __init__(self, journal: ExecutionJournal, events: KernelEvents, overruns: Overruns) -> None:
        self.position = events.log.end
        """The last message that the journal has."""
        self._journal = journal
        self._events = events
        self._overruns = overruns
        self._changed: dict[str, Execution] = {}

    def note(self, execution: Execution) -> None:
        """What an execution shows has changed."""
        self._changed[execution.execution_id] = execution

    def finish(self, execution: Execution) -> None:
        """Write the end of an execution at once."""
        self.note(execution)
        if not self._write(execution):
            self._events.log.wake()

    def keep(self) -> bool:
        """Write all that is new; False when the journal could not take everything."""
        return all([self._write(execution) for execution in tuple(self._changed.values())])

    async def keep_and_acknowledge(self, attachment: Attachment, *, force: bool = False) -> None:
        """Write what is new, then let the supervisor forget it; with ``force`` even in a state that
        a snapshot does not hold wholly, such as after a ``clear_output`` that waits for the next
        output."""
        changed = tuple(self._changed.values())
        if not force and not all(e.is_settled or e.is_over for e in changed):
            return
        # What comes while others have their turn is written the next time.
        seq = self._events.log.end
        is_written = True
        for execution in changed:
            if not (force or execution.is_settled or execution.is_over):
                is_written = False  # since the others had their turn
                continue
            began = thread_time()
            is_written &= self._write(execution)
            attachment.turn.charge(thread_time() - began)
            await attachment.turn.rest()
        if is_written:
            self.position = seq
            await attachment.acknowledge(seq)

    async def run(self, attachment: Attachment) -> None:
        """Keep and acknowledge about once a second while there is something new."""
        while True:
            while self.position >= self._events.log.end and not self._changed:
                await self._events.log.changed()
            await anyio.sleep(KEEP_INTERVAL_S)
            await self.keep_and_acknowledge(attachment)

    def _write(self, execution: Execution) -> bool:
        """Write one; False when the journal could not take it, and it must be tried again."""
        try:
            try:
                with self._overruns.section("a snapshot for the journal"):
                    self._put(execution)
            except TooMuchWork as exc:
                self._overruns.note(exc)
                execution.set_aside(0)
                self._put(execution)
        except SandboxError as exc:
            logger.warning("the journal cannot take %s: %s", execution.execution_id, exc)
            return False
        self._changed.pop(execution.execution_id, None)
        return True

    def _put(self, execution: Execution) -> None:
        put = self._journal.finished if execution.is_over else self._journal.progress
        put(execution.execution_id, execution.snapshot(), self._events.log.end)
