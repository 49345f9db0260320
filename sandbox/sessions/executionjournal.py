"""The journal's executions: their records and latest snapshots."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pydantic import ValidationError

from sandbox.database import Database
from sandbox.errors import InfrastructureError
from sandbox.kernels.models import ExecutionRecord, ExecutionResult
from sandbox.sessions.rows import UNREADABLE, as_json, set_aside

logger = logging.getLogger(__name__)


class ExecutionTable:
    """The executions of one controller's sessions; the ``ExecutionJournal`` of their kernels."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def started(self, record: ExecutionRecord) -> None:
        """Note an execution before its code is sent, and again when it leaves the queue.

        Raises:
            InfrastructureError: It cannot be written, so the code must not be sent.
        """
        text = as_json(record)
        self._db.write(
            "INSERT INTO executions VALUES (?, ?, 0, 0, ?, ?, NULL)"
            " ON CONFLICT (execution_id) DO UPDATE SET record = excluded.record",
            *(record.execution_id, record.session_id, len(text), text),
        )

    def progress(self, execution_id: str, snapshot: ExecutionResult, seq: int) -> None:
        """Note what an execution has come to, up to message ``seq`` of its kernel's log.

        Raises:
            InfrastructureError: It cannot be written; to be tried again.
        """
        self._save(execution_id, snapshot, seq, finished=False)

    def finished(self, execution_id: str, result: ExecutionResult, seq: int) -> None:
        """Note how an execution ended.

        Raises:
            InfrastructureError: It cannot be written; to be tried again.
        """
        self._save(execution_id, result, seq, finished=True)

    def unfinished(self, session_id: str) -> list[ExecutionRecord]:
        """The executions of a session that had not ended when last heard of, oldest first."""
        rows = self._db.read(
            "SELECT execution_id, record, snapshot, seq FROM executions"
            " WHERE session_id = ? AND NOT finished ORDER BY rowid",
            session_id,
        )
        found: list[ExecutionRecord] = []
        for execution_id, *kept in rows:
            try:
                found.append(_record(*kept))
            except ValidationError as exc:
                self._lose(session_id, execution_id, exc)
        return found

    def result(self, session_id: str, execution_id: str) -> ExecutionResult | None:
        """The latest snapshot of an execution of that session; None when there is none."""
        rows = self._db.read(
            "SELECT snapshot FROM executions WHERE execution_id = ? AND session_id = ?",
            *(execution_id, session_id),
        )
        if not rows or not rows[0][0]:
            return None
        try:
            return ExecutionResult.model_validate_json(rows[0][0])
        except ValidationError as exc:
            return self._lose(session_id, execution_id, exc)

    def ended(self, session_id: str, execution_id: str) -> ExecutionRecord | None:
        """The record of an execution of that session that has ended, whose snapshot is its end;
        None when there is none."""
        rows = self._db.read(
            "SELECT record, snapshot, seq FROM executions"
            " WHERE execution_id = ? AND session_id = ? AND finished",
            *(execution_id, session_id),
        )
        try:
            return _record(*rows[0]) if rows else None
        except ValidationError:  # it is set aside when somebody asks for it
            return None

    def recent(self, session_ids: Sequence[str], most: int) -> list[str]:
        """The executions of some sessions that were asked for last, newest first."""
        marks = ", ".join("?" * len(session_ids))
        rows = self._db.read(
            f"SELECT execution_id FROM executions WHERE session_id IN ({marks})"  # noqa: S608  # marks
            " ORDER BY rowid DESC LIMIT ?",
            *(*session_ids, most),
        )
        return [row[0] for row in rows]

    def noted(self, execution_id: str) -> tuple[ExecutionRecord, ExecutionResult | None] | None:
        """What was asked for, and how it ended but without its outputs; that is None while it has
        not, and all of it when it cannot be read any more."""
        rows = self._db.read(
            "SELECT record, CASE WHEN finished AND json_valid(snapshot) THEN json_remove("
            "snapshot, '$.outputs', '$.error') END FROM executions WHERE execution_id = ?",
            execution_id,
        )
        if not rows:
            return None
        record, ended = rows[0]
        try:
            found = ExecutionRecord.model_validate_json(record)
            return found, ExecutionResult.model_validate_json(ended) if ended else None
        except ValidationError:  # it is set aside when somebody asks for it
            return None

    def lose(self, session_id: str, reason: str) -> None:
        """Let the executions of a session that is gone end, with the outputs they had.

        Raises:
            InfrastructureError: It cannot be written; to be tried again.
        """
        told = f"The session ended before it did: {reason}."
        end = {"status": "lost", "state": "lost", "reason": told}
        for record in self.unfinished(session_id):
            result = record.snapshot or ExecutionResult(
                execution_id=record.execution_id,
                session_id=session_id,
                kernel_id=record.kernel_id,
                status="lost",
                state="lost",
            )
            self.finished(record.execution_id, result.model_copy(update=end), record.seq)

    def _save(
        self, execution_id: str, snapshot: ExecutionResult, seq: int, *, finished: bool
    ) -> None:
        text = as_json(snapshot)
        self._db.write(
            "UPDATE executions SET snapshot = ?, seq = ?, finished = ?,"
            " size_bytes = length(record) + ? WHERE execution_id = ?",
            *(text, seq, int(finished), len(text), execution_id),
        )

    def _lose(self, session_id: str, execution_id: str, error: ValidationError) -> ExecutionResult:
        """Set an execution aside, and leave in its place that it is lost."""
        lost = ExecutionResult(
            execution_id=execution_id,
            session_id=session_id,
            kernel_id="",
            status="lost",
            state="kept",
            reason=UNREADABLE,
        )
        rows = self._db.read(
            "SELECT record, snapshot FROM executions WHERE execution_id = ?", execution_id
        )
        set_aside(self._db, execution_id, {"row": rows}, error)
        try:
            self.finished(execution_id, lost, 0)
        except InfrastructureError as exc:
            logger.error("the journal cannot take that %s is lost: %s", execution_id, exc)
        return lost


def _record(record: str, snapshot: str | None, seq: int) -> ExecutionRecord:
    found = ExecutionRecord.model_validate_json(record)
    if snapshot is None:
        return found
    return found.model_copy(
        update={"snapshot": ExecutionResult.model_validate_json(snapshot), "seq": seq}
    )
