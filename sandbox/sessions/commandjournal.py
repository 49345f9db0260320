"""The commands of all sessions in the journal: a row before each is started, and how it ended."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from sandbox.commands.models import CommandRecord, CommandResult, lost
from sandbox.database import Database
from sandbox.errors import InfrastructureError
from sandbox.sessions.rows import UNREADABLE, as_json, set_aside

VERSION = (
    """
    CREATE TABLE commands (
        command_id TEXT PRIMARY KEY,
        session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
        finished INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL, -- of what follows: long columns last, for reads walk them
        record TEXT NOT NULL,
        result TEXT
    ) STRICT
    """,
    "CREATE INDEX commands_by_session ON commands (session_id, finished, size_bytes)",
)
"""What makes the table, for the journal's list of versions."""

logger = logging.getLogger(__name__)


class CommandTable:
    """The commands of one controller's sessions; the ``CommandJournal`` of each session's.

    Every method raises ``InfrastructureError`` when the file cannot be used.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def started(self, record: CommandRecord) -> None:
        """Note a command before it is started; when that cannot be, it must not be started."""
        text = as_json(record)
        self._db.write(
            "INSERT INTO commands VALUES (?, ?, 0, ?, ?, NULL)",
            *(record.command_id, record.session_id, len(text), text),
        )

    def refused(self, command_id: str) -> None:
        """Forget a command that could not be started."""
        self._db.write("DELETE FROM commands WHERE command_id = ?", command_id)

    def finished(self, result: CommandResult) -> None:
        """Note how a command ended."""
        text = as_json(result)
        self._db.write(
            "UPDATE commands SET result = ?, finished = 1, size_bytes = length(record) + ?"
            " WHERE command_id = ?",
            *(text, len(text), result.command_id),
        )

    def unfinished(self, session_id: str) -> list[CommandRecord]:
        """The commands of a session that had not ended when last heard of, oldest first."""
        rows = self._db.read(
            "SELECT command_id, record FROM commands WHERE session_id = ? AND NOT finished"
            " ORDER BY rowid",
            session_id,
        )
        found: list[CommandRecord] = []
        for command_id, record in rows:
            try:
                found.append(CommandRecord.model_validate_json(record))
            except ValidationError as exc:
                self._lose(session_id, command_id, exc)
        return found

    def result(self, session_id: str, command_id: str) -> CommandResult | None:
        """How a command of that session ended; None when that is not known."""
        rows = self._db.read(
            "SELECT result FROM commands WHERE command_id = ? AND session_id = ? AND finished",
            *(command_id, session_id),
        )
        if not rows:
            return None
        try:
            return CommandResult.model_validate_json(rows[0][0])
        except ValidationError as exc:
            return self._lose(session_id, command_id, exc)

    def session_of(self, command_id: str) -> str:
        """The id of the session of a command; empty when there is no such command."""
        rows = self._db.read("SELECT session_id FROM commands WHERE command_id = ?", command_id)
        return rows[0][0] if rows else ""

    def lose(self, session_id: str, reason: str) -> None:
        """Let the commands of a session that is gone end."""
        for record in self.unfinished(session_id):
            self.finished(lost(record, f"The session ended before it did: {reason}."))

    def _lose(self, session_id: str, command_id: str, error: ValidationError) -> CommandResult:
        """Set a command aside, and leave in its place that it is lost."""
        result = CommandResult(
            command_id=command_id, session_id=session_id, status="lost", reason=UNREADABLE
        )
        rows = self._db.read("SELECT record, result FROM commands WHERE command_id = ?", command_id)
        set_aside(self._db, command_id, {"row": rows}, error)
        try:
            self.finished(result)
        except InfrastructureError as exc:
            logger.error("the journal cannot take that %s is lost: %s", command_id, exc)
        return result
