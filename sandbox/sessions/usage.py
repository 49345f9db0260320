"""What each principal has used up today, in a file, so that a restart forgives nobody.

A day is one of UTC. Processor time is noted for each session, as the engine measures it since the
container's start; what a session used on earlier days is known from its earlier rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from sandbox.database import Database
from sandbox.errors import InfrastructureError

DAY_S = 86_400
KEEP_DAYS = 32
"""Longer than any session may last."""

logger = logging.getLogger(__name__)
_SCHEMA = (
    """
    CREATE TABLE processor (
        session_id TEXT NOT NULL,
        day INTEGER NOT NULL,
        principal TEXT NOT NULL,
        cpu_s REAL NOT NULL,
        PRIMARY KEY (session_id, day)
    ) STRICT
    """,
    """
    CREATE TABLE egress (
        principal TEXT NOT NULL,
        day INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        PRIMARY KEY (principal, day)
    ) STRICT
    """,
)


class Usage:
    """The day's use of a controller's principals; its file is made when absent.

    Raises:
        ConfigError: The file cannot be used.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._db = Database(
            path,
            application_id=0x5A4E4451,
            versions=(_SCHEMA,),
            what="record of use",
            remedy="Move it away to start a new one; the day's quotas then begin anew.",
        )
        self._today = -1
        self._cpu_s: dict[str, float] = {}
        self._earlier_s: dict[str, float] = {}
        self._egress_bytes: dict[str, int] = {}
        self._unwritten: set[str] = set()

    def close(self) -> None:
        """Write what is not written yet and close the file; harmless when done already."""
        try:
            self.flush()
        except InfrastructureError as exc:
            logger.error("what was used lately is forgotten: %s", exc)
        self._unwritten.clear()
        self._db.close()

    @property
    def left_s(self) -> float:
        """The seconds until the day is over."""
        return DAY_S - self._clock() % DAY_S

    def cpu_s(self, principal: str) -> float:
        """The processor time that a principal's sessions have used today, seconds."""
        self._turn()
        if principal not in self._cpu_s:
            ((found,),) = self._db.read(
                "SELECT coalesce(sum(cpu_s), 0.0) FROM processor WHERE principal = ? AND day = ?",
                principal,
                self._today,
            )
            self._cpu_s[principal] = found
        return self._cpu_s[principal]

    def note_cpu(self, principal: str, session_id: str, total_s: float) -> None:
        """Note the seconds that a session has used since its container was started, which only
        grow."""
        used_s = self.cpu_s(principal)
        before_s = self._noted_s(session_id)
        if total_s <= before_s:
            return
        self._db.write(
            "INSERT INTO processor VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET cpu_s = cpu_s + excluded.cpu_s",
            session_id,
            self._today,
            principal,
            total_s - before_s,
        )
        self._earlier_s[session_id] = total_s
        self._cpu_s[principal] = used_s + total_s - before_s

    def forget(self, session_id: str) -> None:
        """A session is over: nothing more will be noted of it."""
        self._earlier_s.pop(session_id, None)

    def egress_bytes(self, principal: str) -> int:
        """The bytes that a principal's sessions have exchanged with the network today."""
        self._turn()
        if principal not in self._egress_bytes:
            rows = self._db.read(
                "SELECT size_bytes FROM egress WHERE principal = ? AND day = ?",
                principal,
                self._today,
            )
            self._egress_bytes[principal] = rows[0][0] if rows else 0
        return self._egress_bytes[principal]

    def add_egress(self, principal: str, size_bytes: int) -> None:
        """Count bytes; they are written with the next :meth:`flush`."""
        self._egress_bytes[principal] = self.egress_bytes(principal) + size_bytes
        self._unwritten.add(principal)

    def flush(self) -> None:
        """Write what was counted since the last time.

        Raises:
            InfrastructureError: It cannot be written; to be tried again.
        """
        for principal in tuple(self._unwritten):
            self._db.write(
                "INSERT OR REPLACE INTO egress VALUES (?, ?, ?)",
                principal,
                self._today,
                self._egress_bytes[principal],
            )
            self._unwritten.discard(principal)

    def _noted_s(self, session_id: str) -> float:
        if session_id not in self._earlier_s:
            ((found,),) = self._db.read(
                "SELECT coalesce(sum(cpu_s), 0.0) FROM processor WHERE session_id = ?", session_id
            )
            self._earlier_s[session_id] = found
        return self._earlier_s[session_id]

    def _turn(self) -> None:
        """Begin a new day when it has come."""
        today = int(self._clock() // DAY_S)
        if today == self._today:
            return
        if self._today >= 0:
            self.flush()
        self._today = today
        self._cpu_s.clear()
        self._egress_bytes.clear()
        for table in ("processor", "egress"):
            self._db.write(f"DELETE FROM {table} WHERE day < ?", today - KEEP_DAYS)  # noqa: S608  # constants
