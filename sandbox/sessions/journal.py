"""What a controller must remember when it dies: which sandbox is whose, and what ran in it.

The engine knows which containers there are and what each is; the journal knows whose they are, in
SQLite: a session's row is its claim, and is written before anybody hears of the session. The
executions and commands of sessions are in the same file (``sandbox.sessions.executionjournal``,
``sandbox.sessions.commandjournal``), and so are its shared notebooks
(``sandbox.sessions.notebookjournal``). One process
writes it (whoever holds the slot, ``sandbox.sessions.slots``). Calls are synchronous: a write goes
to the write-ahead log without waiting for the disk, in some tens of microseconds, so it survives
the death of the process but not always that of the machine, which takes the containers along
anyway.

Where the disk is full nothing new is promised, but sessions end all the same: their ends count from
then on, and are written when there is room.

A row that cannot be read any more stops nobody: it is set aside in a table of its own, with the
reason, and whoever asks for it is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from sandbox.database import Database
from sandbox.egress.models import Tightening
from sandbox.sessions import commandjournal, notebookjournal
from sandbox.sessions.claims import Claim
from sandbox.sessions.executionjournal import ExecutionTable
from sandbox.sessions.retention import forget
from sandbox.sessions.rows import Run, as_json, latest_runs, set_aside

APPLICATION_ID = 0x5A4E4458

SessionState = Literal["opening", "open", "closed", "expired", "lost"]

SCHEMA = (
    (
        """
        CREATE TABLE sessions (
            session_id TEXT PRIMARY KEY,
            principal TEXT NOT NULL,
            default_key TEXT,           -- of the caller whose default session it is; else null
            opener_key TEXT NOT NULL,   -- default key of the caller that opened it
            name TEXT NOT NULL,
            state TEXT NOT NULL,        -- opening, open, closed, expired, lost
            reason TEXT NOT NULL,       -- why it ended
            told INTEGER NOT NULL,      -- whether its caller, whose default it was, knows its end
            info TEXT NOT NULL,         -- what was last said of it, as JSON
            last_activity REAL NOT NULL,
            ended_at REAL               -- unix time, seconds
        ) STRICT
        """,
        "CREATE INDEX sessions_by_default ON sessions (principal, default_key)",
        """
        CREATE TABLE executions (
            execution_id TEXT PRIMARY KEY,
            session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
            finished INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            size_bytes INTEGER NOT NULL, -- of what follows: long columns last, for reads walk them
            record TEXT NOT NULL,
            snapshot TEXT
        ) STRICT
        """,
        "CREATE INDEX executions_by_session ON executions (session_id, finished)",
    ),
    (
        """
        CREATE TABLE tightenings (
            session_id TEXT PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
            tightening TEXT NOT NULL    -- what was taken from its network, as JSON
        ) STRICT
        """,
    ),
    (
        # With the sizes in it, what is to be forgotten is found without a look at the rows.
        "DROP INDEX executions_by_session",
        "CREATE INDEX executions_by_session ON executions (session_id, finished, size_bytes)",
        "CREATE INDEX sessions_by_end ON sessions (ended_at)",
        """
        CREATE TABLE set_aside (
            at REAL NOT NULL,           -- unix time, seconds
            reason TEXT NOT NULL,
            id TEXT NOT NULL,           -- of the execution or session
            content TEXT NOT NULL       -- the row as it was, as JSON
        ) STRICT
        """,
    ),
    (
        # Which sandbox a session has claimed, and what its container's labels must say: a sandbox
        # serves one session, once. Sessions of before have none, and are not taken back.
        "ALTER TABLE sessions ADD COLUMN sandbox_id TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE sessions ADD COLUMN uid INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN policy_digest TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE sessions ADD COLUMN workspace TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE sessions ADD COLUMN created_at REAL NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN expires_at REAL NOT NULL DEFAULT 0",
        "CREATE UNIQUE INDEX sessions_by_sandbox ON sessions (sandbox_id) WHERE sandbox_id <> ''",
    ),
    commandjournal.VERSION,
    notebookjournal.VERSION,
    # Whether it makes a checkpoint before each cell.
    ("ALTER TABLE sessions ADD COLUMN checkpoint TEXT NOT NULL DEFAULT ''",),
    ("ALTER TABLE sessions ADD COLUMN forked_from TEXT NOT NULL DEFAULT ''",),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow(Claim):
    """A session as the journal knows it: its claim, and what came of it.

    Args:
        state: ``opening`` until the caller may have it; ``closed``, ``expired`` and ``lost`` are
            final.
        reason: Why it ended.
        told: 1 when the caller whose default session it was knows that it ended, else 0.
        info: What was last said of it, as JSON; empty while opening.
        last_activity: Unix time, seconds.
        ended_at: Unix time, seconds; None while it has not ended.
    """

    state: SessionState
    reason: str
    told: int
    info: str
    last_activity: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class _End:
    """How a session has ended, and when: see :meth:`Journal.ended`."""

    state: SessionState
    reason: str
    info: str | None
    at: float


_NAMES = tuple(field.name for field in fields(SessionRow))
_COLUMNS = ", ".join(_NAMES)


class Journal:
    """The journal of one controller; its file is made when absent.

    Raises:
        ConfigError: The file is not a journal, is damaged, or was written by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._db = Database(
            path,
            application_id=APPLICATION_ID,
            versions=SCHEMA,
            what="journal",
            remedy="Move it away to start a new one; without it nobody knows whose the running "
            "sessions are, so they are removed.",
            pragmas=("auto_vacuum = INCREMENTAL",),
        )
        self._owed: dict[str, _End | None] = {}
        """The ends of sessions that could not be written yet; None for one that never opened."""
        self.executions = ExecutionTable(self._db)
        self.commands = commandjournal.CommandTable(self._db)
        self.notebooks = notebookjournal.NotebookTable(self._db)

    def close(self) -> None:
        """Close the file; harmless when done already."""
        self._db.close()

    # --- sessions

    def claimed(self, claim: Claim, now: float) -> None:
        """Note a session before its sandbox is made or handed over.

        Raises:
            InfrastructureError: It cannot be written, or another session has claimed the sandbox;
                so nothing may be promised to anybody.
        """
        row = {
            **asdict(claim),
            **{"state": "opening", "reason": "", "told": 0, "info": "", "last_activity": now},
        }
        marks = ", ".join("?" * len(row))
        self._db.write(
            f"INSERT INTO sessions ({', '.join(row)}) VALUES ({marks})",  # noqa: S608  # constants
            *row.values(),
        )

    def opened(self, session_id: str, info: BaseModel) -> None:
        """Note that a session is ready for its caller."""
        self._db.write(
            "UPDATE sessions SET state = 'open', info = ? WHERE session_id = ?",
            as_json(info),
            session_id,
        )

    def not_opened(self, session_id: str) -> None:
        """Forget a session that never became ready.

        Raises:
            InfrastructureError: It cannot be written; :meth:`settle` tries again.
        """
        self._owed[session_id] = None
        self._write_end(session_id)

    def used(self, session_id: str, last_activity: float) -> None:
        """Note when a session was last used."""
        self._db.write(
            "UPDATE sessions SET last_activity = ? WHERE session_id = ?", last_activity, session_id
        )

    def ended(
        self, session_id: str, state: SessionState, reason: str, info: BaseModel | None, now: float
    ) -> None:
        """Note that a session is over, and why.

        Raises:
            InfrastructureError: It cannot be written; it counts, and :meth:`settle` tries again.
        """
        told = None if info is None else as_json(info)
        self._owed[session_id] = _End(state, reason, told, now)
        self._write_end(session_id)

    def settle(self) -> None:
        """Write the ends of sessions that could not be written when they came.

        Raises:
            InfrastructureError: They cannot be written yet.
        """
        for session_id, end in tuple(self._owed.items()):
            if end is not None:
                self.executions.lose(session_id, end.reason)
                self.commands.lose(session_id, end.reason)
            self._write_end(session_id)

    def _write_end(self, session_id: str) -> None:
        end = self._owed[session_id]
        if end is None:
            self._db.write("DELETE FROM sessions WHERE session_id = ?", session_id)
        else:
            self._db.write(
                "UPDATE sessions SET state = ?, reason = ?, info = coalesce(?, info), ended_at = ?"
                " WHERE session_id = ?",
                *(end.state, end.reason, end.info, end.at, session_id),
            )
            self.notebooks.forget_all(session_id)
        del self._owed[session_id]

    def told(self, session_id: str) -> None:
        """Note that the caller whose default session this was knows that it ended."""
        self._db.write("UPDATE sessions SET told = 1 WHERE session_id = ?", session_id)

    def passed_on(self, session_id: str, opener_key: str, default_key: str | None) -> None:
        """Note whose a session is now.

        Raises:
            InfrastructureError: It cannot be written, so it must not be promised.
        """
        self._db.write(
            "UPDATE sessions SET opener_key = ?, default_key = ? WHERE session_id = ?",
            *(opener_key, default_key, session_id),
        )

    def checkpoints(self, session_id: str, checkpoint: str) -> None:
        """Note whether a session makes a checkpoint before each cell from now on.

        Raises:
            InfrastructureError: It cannot be written, so it must not be promised.
        """
        self._db.write(
            "UPDATE sessions SET checkpoint = ? WHERE session_id = ?", checkpoint, session_id
        )

    def tightened(self, session_id: str, tightening: Tightening) -> None:
        """Note all that was taken from a session's network since it was opened.

        Raises:
            InfrastructureError: It cannot be written, so it must not be promised.
        """
        self._db.write(
            "INSERT OR REPLACE INTO tightenings VALUES (?, ?)", session_id, as_json(tightening)
        )

    def tightening(self, session_id: str) -> Tightening:
        """All that was taken from a session's network since it was opened."""
        rows = self._db.read("SELECT tightening FROM tightenings WHERE session_id = ?", session_id)
        if not rows:
            return Tightening()
        try:
            return Tightening.model_validate_json(rows[0][0])
        except ValidationError as exc:  # what was taken is not known, so all of it is
            set_aside(self._db, session_id, {"tightening": rows[0][0]}, exc)
            return Tightening(is_off=True)

    def session(self, principal: str, session_id: str) -> SessionRow | None:
        """The session of that id, if it is that principal's."""
        return self._one_session("principal = ? AND session_id = ?", (principal, session_id))

    def latest_default(self, principal: str, default_key: str) -> SessionRow | None:
        """The latest session that was the default of that caller."""
        return self._one_session(
            "principal = ? AND default_key = ? ORDER BY rowid DESC LIMIT 1",
            (principal, default_key),
        )

    def latest_default_of(self, principal: str, line: str) -> SessionRow | None:
        """The latest session that was the default of a caller whose key begins so."""
        return self._one_session(
            "principal = ? AND default_key >= ? AND default_key < ? ORDER BY rowid DESC LIMIT 1",
            (principal, line, line + "\U0010ffff"),
        )

    def latest(self, principal: str, most: int) -> list[SessionRow]:
        """The sessions of a principal that were opened last, newest first."""
        return self._sessions("principal = ? ORDER BY rowid DESC LIMIT ?", (principal, most))

    def policies_used(self) -> list[str]:
        """The digests of the policies of all sessions that it knows, the latest session's first."""
        rows = self._db.read(
            "SELECT policy_digest FROM sessions GROUP BY policy_digest ORDER BY max(rowid) DESC"
        )
        return [digest for (digest,) in rows]

    def not_ended(self) -> list[SessionRow]:
        """The sessions that had not ended when last heard of."""
        return self._sessions("state IN ('opening', 'open')", ())

    def session_of(self, principal: str, execution_id: str) -> SessionRow | None:
        """The session of an execution, if it is that principal's."""
        return self._one_session(
            "principal = ? AND session_id ="
            " (SELECT session_id FROM executions WHERE execution_id = ?)",
            (principal, execution_id),
        )

    def runs(
        self,
        table: Literal["executions", "commands"],
        session_id: str,
        *,
        asked_bytes: int,
        result_bytes: int,
    ) -> Iterator[Run]:
        """What ran in a session: see :func:`sandbox.sessions.rows.latest_runs`."""
        return latest_runs(
            self._db, table, session_id, asked_bytes=asked_bytes, result_bytes=result_bytes
        )

    def of_sandbox(self, sandbox_id: str) -> SessionRow | None:
        """The session that has claimed a sandbox."""
        return self._one_session("sandbox_id = ?", (sandbox_id,))

    def _one_session(self, where: str, values: tuple[Any, ...]) -> SessionRow | None:
        return next(iter(self._sessions(where, values)), None)

    def _sessions(self, where: str, values: tuple[Any, ...]) -> list[SessionRow]:
        rows = self._db.read(f"SELECT {_COLUMNS} FROM sessions WHERE {where}", *values)  # noqa: S608  # constants
        found = (SessionRow(**dict(zip(_NAMES, row, strict=True))) for row in rows)
        return [self._as_it_is(row) for row in found] if self._owed else [*found]

    def _as_it_is(self, row: SessionRow) -> SessionRow:
        """A row with the end that could not be written into it yet."""
        end = self._owed.get(row.session_id)
        if end is None:
            return row
        info = row.info if end.info is None else end.info
        return replace(row, state=end.state, reason=end.reason, info=info, ended_at=end.at)

    # --- retention

    def prune(self, now: float) -> Iterator[None]:
        """Forget what is too old or too much, a step at a time: see ``sandbox.sessions.retention``.

        Raises:
            InfrastructureError: While iterating: the file cannot be used.
        """
        return forget(self._db, now)
