"""What a controller must remember when it dies: its sessions and their executions, in SQLite.

Containers are the truth of what exists; the journal adds what no label can carry: the name and the
default key of a session, when it was last used, and for each execution its record and latest
snapshot. One process writes it (whoever holds the slot, ``sandbox.sessions.state``). Calls are
synchronous: a write goes to the write-ahead log without waiting for the disk, in some tens of
microseconds, so it survives the death of the process but not always that of the machine, which
takes the containers along anyway.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from sandbox.egress import Tightening
from sandbox.errors import ConfigError, InfrastructureError
from sandbox.kernels.models import ExecutionRecord, ExecutionResult

APPLICATION_ID = 0x5A4E4458
SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 2.0
KEEP_ENDED_S = 24 * 3600.0
KEEP_ENDED_SESSIONS = 1000
KEEP_FINISHED_PER_SESSION = 500
KEEP_FINISHED_BYTES = 256 * 1024 * 1024
FORGET_AT_ONCE = 20
VACUUM_PAGES = 4096

SessionState = Literal["opening", "open", "closed", "expired", "lost"]

_TIGHTENINGS = """
CREATE TABLE tightenings (
    session_id TEXT PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    tightening TEXT NOT NULL    -- what was taken from its network, as JSON
) STRICT;
"""
_SCHEMA = f"""
PRAGMA auto_vacuum = INCREMENTAL;
BEGIN IMMEDIATE;
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    default_key TEXT,           -- of the caller whose default session it is; else null
    opener_key TEXT NOT NULL,   -- default key of the caller that opened it
    name TEXT NOT NULL,
    state TEXT NOT NULL,        -- opening, open, closed, expired, lost
    reason TEXT NOT NULL,       -- why it ended
    told INTEGER NOT NULL,      -- whether the caller whose default it was knows that it ended
    info TEXT NOT NULL,         -- what was last said of it, as JSON
    last_activity REAL NOT NULL,
    ended_at REAL               -- unix time, seconds
) STRICT;
CREATE INDEX sessions_by_default ON sessions (principal, default_key);
CREATE TABLE executions (
    execution_id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    finished INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, -- of what follows; long columns last, or all reads walk them
    record TEXT NOT NULL,
    snapshot TEXT
) STRICT;
CREATE INDEX executions_by_session ON executions (session_id, finished);
{_TIGHTENINGS}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

_ENDED = (
    "WITH ended AS (SELECT session_id FROM (SELECT session_id, ended_at,"
    " row_number() OVER (ORDER BY ended_at DESC) AS place FROM sessions"
    " WHERE ended_at IS NOT NULL) WHERE ended_at < ? OR place > ?) "
)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as the journal knows it.

    Args:
        session_id: Its id.
        principal: Whose it is.
        default_key: The key of the caller whose default session it is; None when it is nobody's.
        opener_key: The default key of the caller that opened it.
        name: The name the caller gave it; empty for none.
        state: ``opening`` until the caller may have it; ``closed``, ``expired`` and ``lost`` are
            final.
        reason: Why it ended.
        told: 1 when the caller whose default session it was knows that it ended, else 0.
        info: What was last said of it, as JSON; empty while opening.
        last_activity: Unix time, seconds.
        ended_at: Unix time, seconds; None while it has not ended.
    """

    session_id: str
    principal: str
    default_key: str | None
    opener_key: str
    name: str
    state: SessionState
    reason: str
    told: int
    info: str
    last_activity: float
    ended_at: float | None


class Journal:
    """The journal of one controller; also the ``ExecutionJournal`` of its sessions' kernels.

    Args:
        path: The file; made when absent.

    Raises:
        ConfigError: The file is not a journal, is damaged, or was written by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        except sqlite3.Error as exc:
            raise self._unreadable(str(exc)) from exc
        try:
            self._open()
        except sqlite3.Error as exc:
            self._db.close()
            raise self._unreadable(str(exc)) from exc
        except ConfigError:
            self._db.close()
            raise

    def _open(self) -> None:
        def pragma(name: str) -> Any:
            return self._db.execute(f"PRAGMA {name}").fetchone()[0]

        self._path.chmod(0o600)
        version = pragma("user_version")
        is_new = version == 0 and not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone()
        if not is_new:
            if pragma("application_id") != APPLICATION_ID:
                raise self._unreadable("it is some other program's database")
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"{self._path} was written by a newer version of this program.",
                    remedy="Use that version, or set SANDBOX_STATE_DIR to another directory.",
                )
            if (verdict := pragma("quick_check(1)")) != "ok":
                raise self._unreadable(str(verdict))
        if is_new:
            self._db.executescript(_SCHEMA)
        elif version < 2:
            self._db.executescript(
                f"BEGIN IMMEDIATE; {_TIGHTENINGS} PRAGMA user_version = 2; COMMIT;"
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")

    def _unreadable(self, reason: str) -> ConfigError:
        return ConfigError(
            f"The journal {self._path} cannot be used: {reason}.",
            remedy="Move it away to start a new one; running sessions are found again by their "
            "containers, names and earlier results are lost.",
        )

    def close(self) -> None:
        """Close the file; harmless when done already."""
        self._db.close()

    # --- sessions

    def opening(
        self, session_id: str, principal: str, opener_key: str, name: str, now: float
    ) -> None:
        """Note a session that is about to get its container."""
        self._write(
            "INSERT OR REPLACE INTO sessions VALUES (?, ?, NULL, ?, ?, 'opening', '', 0, '', ?,"
            " NULL)",
            (session_id, principal, opener_key, name, now),
        )

    def adopted(self, session_id: str, principal: str, now: float) -> None:
        """Note a session that was found by its container and is not known here."""
        self._write(
            "INSERT INTO sessions VALUES (?, ?, NULL, '', '', 'open', '', 0, '', ?, NULL)",
            (session_id, principal, now),
        )

    def opened(self, session_id: str, info: BaseModel, default_key: str | None) -> None:
        """Note that a session is ready for its caller, and whose default it is."""
        self._write(
            "UPDATE sessions SET state = 'open', info = ?, default_key = ? WHERE session_id = ?",
            (_json(info), default_key, session_id),
        )

    def not_opened(self, session_id: str) -> None:
        """Forget a session that never became ready."""
        self._write("DELETE FROM sessions WHERE session_id = ?", (session_id,))

    def used(self, session_id: str, last_activity: float) -> None:
        """Note when a session was last used."""
        self._write(
            "UPDATE sessions SET last_activity = ? WHERE session_id = ?",
            (last_activity, session_id),
        )

    def ended(
        self, session_id: str, state: SessionState, reason: str, info: BaseModel | None, now: float
    ) -> None:
        """Note that a session is over, and why."""
        self._write(
            "UPDATE sessions SET state = ?, reason = ?, info = coalesce(?, info), ended_at = ?"
            " WHERE session_id = ?",
            (state, reason, None if info is None else _json(info), now, session_id),
        )

    def told(self, session_id: str) -> None:
        """Note that the caller whose default session this was knows that it ended."""
        self._write("UPDATE sessions SET told = 1 WHERE session_id = ?", (session_id,))

    def tightened(self, session_id: str, tightening: Tightening) -> None:
        """Note all that was taken from a session's network since it was opened.

        Raises:
            InfrastructureError: It cannot be written, so it must not be promised.
        """
        self._write(
            "INSERT OR REPLACE INTO tightenings VALUES (?, ?)", (session_id, _json(tightening))
        )

    def tightening(self, session_id: str) -> Tightening:
        """All that was taken from a session's network since it was opened."""
        rows = self._read("SELECT tightening FROM tightenings WHERE session_id = ?", (session_id,))
        return Tightening.model_validate_json(rows[0][0]) if rows else Tightening()

    def session(self, principal: str, session_id: str) -> SessionRow | None:
        """The session of that id, if it is that principal's."""
        return self._one_session("principal = ? AND session_id = ?", (principal, session_id))

    def latest_default(self, principal: str, default_key: str) -> SessionRow | None:
        """The latest session that was the default of that caller."""
        return self._one_session(
            "principal = ? AND default_key = ? ORDER BY rowid DESC LIMIT 1",
            (principal, default_key),
        )

    def not_ended(self) -> list[SessionRow]:
        """The sessions that had not ended when last heard of."""
        return self._sessions("state IN ('opening', 'open')", ())

    def _one_session(self, where: str, values: tuple[Any, ...]) -> SessionRow | None:
        return next(iter(self._sessions(where, values)), None)

    def _sessions(self, where: str, values: tuple[Any, ...]) -> list[SessionRow]:
        rows = self._read(f"SELECT * FROM sessions WHERE {where}", values)  # noqa: S608  # constants
        return [SessionRow(*row) for row in rows]

    # --- executions: sandbox.kernels.ExecutionJournal

    def started(self, record: ExecutionRecord) -> None:
        """Note an execution before its code is sent, and again when it leaves the queue.

        Raises:
            InfrastructureError: It cannot be written, so the code must not be sent.
        """
        text = _json(record)
        self._write(
            "INSERT INTO executions VALUES (?, ?, 0, 0, ?, ?, NULL)"
            " ON CONFLICT (execution_id) DO UPDATE SET record = excluded.record",
            (record.execution_id, record.session_id, len(text), text),
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
        rows = self._read(
            "SELECT record, snapshot, seq FROM executions WHERE session_id = ? AND NOT finished"
            " ORDER BY rowid",
            (session_id,),
        )
        return [_record(*row) for row in rows]

    def result(self, session_id: str, execution_id: str) -> ExecutionResult | None:
        """The latest snapshot of an execution of that session; None when there is none."""
        rows = self._read(
            "SELECT snapshot FROM executions WHERE execution_id = ? AND session_id = ?",
            (execution_id, session_id),
        )
        return ExecutionResult.model_validate_json(rows[0][0]) if rows and rows[0][0] else None

    def session_of(self, principal: str, execution_id: str) -> SessionRow | None:
        """The session of an execution, if it is that principal's."""
        return self._one_session(
            "principal = ? AND session_id ="
            " (SELECT session_id FROM executions WHERE execution_id = ?)",
            (principal, execution_id),
        )

    def _save(
        self, execution_id: str, snapshot: ExecutionResult, seq: int, *, finished: bool
    ) -> None:
        text = _json(snapshot)
        self._write(
            "UPDATE executions SET snapshot = ?, seq = ?, finished = ?,"
            " size_bytes = length(record) + ? WHERE execution_id = ?",
            (text, seq, int(finished), len(text), execution_id),
        )

    # --- retention

    def prune(self, now: float) -> bool:
        """Forget some of what is too old or too much, and give the file's space back.

        Ended sessions go after a day or past a thousand, with their executions; of each session
        the latest results are kept, and of all of them together those that fit a bound in bytes.

        Returns:
            Whether there is more to forget; each call is kept short.
        """
        surplus = self._write(
            "DELETE FROM executions WHERE rowid IN (SELECT rowid FROM (SELECT rowid, finished,"
            " session_id IN (SELECT session_id FROM ended) AS is_over,"
            " row_number() OVER (PARTITION BY session_id ORDER BY rowid DESC) AS place,"
            " sum(size_bytes) OVER (ORDER BY rowid DESC) AS size FROM executions)"
            " WHERE is_over OR finished AND (place > ? OR size > ?) LIMIT ?)",
            (KEEP_FINISHED_PER_SESSION, KEEP_FINISHED_BYTES, FORGET_AT_ONCE),
            ended_before=now - KEEP_ENDED_S,
        )
        self._write(
            "DELETE FROM sessions WHERE session_id IN (SELECT session_id FROM ended)"
            " AND session_id NOT IN (SELECT session_id FROM executions)",
            (),
            ended_before=now - KEEP_ENDED_S,
        )
        with self._translated():  # a script: sqlite3 would step any other statement only once
            self._db.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        return surplus >= FORGET_AT_ONCE

    # --- the file

    def _write(
        self, sql: str, values: tuple[Any, ...], *, ended_before: float | None = None
    ) -> int:
        """Run one statement, which is one transaction, and return how many rows it changed.

        Args:
            sql: The statement; with ``ended_before`` it may select from ``ended``.
            values: Its values.
            ended_before: Unix time; ``ended`` are the sessions to forget.
        """
        if ended_before is not None:
            sql, values = _ENDED + sql, (ended_before, KEEP_ENDED_SESSIONS, *values)
        with self._translated():
            return self._db.execute(sql, values).rowcount

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            with self._translated():
                return self._db.execute(sql, values).fetchall()
        except UnicodeEncodeError:  # a lone surrogate in an id: nothing here has one
            return []

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            full = exc.sqlite_errorcode == sqlite3.SQLITE_FULL if _has_code(exc) else False
            raise InfrastructureError(
                f"The controller cannot use its journal {self._path}: {exc}.",
                remedy="Free some disk space there." if full else "See the controller's log.",
            ) from exc


def _has_code(exc: sqlite3.Error) -> bool:
    return hasattr(exc, "sqlite_errorcode")


def _json(value: BaseModel) -> str:
    """A model as JSON that SQLite can hold: lone surrogates, which a kernel may send, replaced."""
    dump: Callable[[], str] = value.model_dump_json
    try:
        return dump()
    except ValueError:
        text = json.dumps(value.model_dump(), ensure_ascii=False, default=str)
        return text.encode("utf-8", "replace").decode()


def _record(record: str, snapshot: str | None, seq: int) -> ExecutionRecord:
    found = ExecutionRecord.model_validate_json(record)
    if snapshot is None:
        return found
    return found.model_copy(
        update={"snapshot": ExecutionResult.model_validate_json(snapshot), "seq": seq}
    )
