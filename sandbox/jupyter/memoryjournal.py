"""A journal of executions in memory: a Jupyter Server's kernels do not outlive it either."""

from __future__ import annotations

from collections import OrderedDict

from sandbox.kernels.models import ExecutionRecord, ExecutionResult

MAX_RECORDS = 200
FORGOTTEN = "Its outputs are no longer kept."


class MemoryJournal:
    """The latest executions and how they ended; an ``ExecutionJournal``."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, ExecutionRecord] = OrderedDict()

    def latest(self, most: int) -> list[ExecutionRecord]:
        """What was asked for last, newest first."""
        return list(reversed(self._records.values()))[:most]

    def started(self, record: ExecutionRecord) -> None:
        """Keep a new execution; called again when it runs."""
        self._records[record.execution_id] = record
        while len(self._records) > MAX_RECORDS:
            self._records.popitem(last=False)

    def progress(self, execution_id: str, snapshot: ExecutionResult, seq: int) -> None:
        """Nothing is kept of its outputs: as long as it runs, they are in memory."""

    def finished(self, execution_id: str, result: ExecutionResult, seq: int) -> None:
        """Keep how it ended. Its outputs are in memory while it is recent, and then nowhere."""
        if (record := self._records.get(execution_id)) is not None:
            reason = " ".join(filter(None, (result.reason, FORGOTTEN)))
            kept = result.model_copy(update={"outputs": [], "reason": reason})
            self._records[execution_id] = record.model_copy(update={"snapshot": kept})

    def unfinished(self, session_id: str) -> list[ExecutionRecord]:
        """None: no kernel has anything of an earlier server."""
        del session_id
        return []

    def result(self, session_id: str, execution_id: str) -> ExecutionResult | None:
        """How an execution ended; None when it is not known."""
        del session_id
        record = self._records.get(execution_id)
        return record.snapshot if record is not None else None

    def ended(self, session_id: str, execution_id: str) -> ExecutionRecord | None:
        """None: nothing can be added to outputs that are no longer kept."""
        del session_id, execution_id
        return None
