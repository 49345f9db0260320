"""The shared notebooks of all sessions in the journal: the updates that made each, and what runs.

The updates hold a document with its past, so that a peer which was connected to an earlier
controller goes on with this one. An update is here before a peer or caller hears of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sandbox.database import Database
from sandbox.errors import QuotaExceeded

KEEP_BYTES = 256 * 1024 * 1024
"""Of the notebooks of one principal together."""
COUNT_BYTES = 1024 * 1024
"""So much is written of a notebook before all of its principal's are counted again."""
SMALL_BYTES, RESERVE_BYTES = 4096, 1024 * 1024
"""Of what is too much, so many bytes are taken in such small updates: that a cell is over, and why
its outputs are not there, is kept also then."""
FORGET_AT_ONCE_BYTES = 4 * 1024 * 1024
"""Of a session that ends; more is forgotten a little at a time."""

VERSION = (
    """
    CREATE TABLE notebooks (
        file_id TEXT PRIMARY KEY,
        session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
        path TEXT NOT NULL,
        is_open INTEGER NOT NULL,
        kernel_id TEXT NOT NULL,    -- empty while it has none
        etag TEXT NOT NULL,         -- of its file when that was read or written last
        base BLOB                   -- what the file had then, compressed; null when not kept
    ) STRICT
    """,
    "CREATE UNIQUE INDEX notebooks_by_path ON notebooks (session_id, path)",
    """
    CREATE TABLE notebook_updates (
        seq INTEGER PRIMARY KEY,
        file_id TEXT NOT NULL REFERENCES notebooks ON DELETE CASCADE,
        size_bytes INTEGER NOT NULL,
        data BLOB NOT NULL
    ) STRICT
    """,
    "CREATE INDEX notebook_updates_by_file ON notebook_updates (file_id, size_bytes)",
    """
    CREATE TABLE notebook_runs (
        execution_id TEXT PRIMARY KEY,
        file_id TEXT NOT NULL REFERENCES notebooks ON DELETE CASCADE,
        cell_id TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX notebook_runs_by_file ON notebook_runs (file_id)",
)
"""What makes the tables, for the journal's list of versions."""


@dataclass(frozen=True, slots=True)
class NotebookRow:
    """A notebook as the journal knows it."""

    file_id: str
    path: str
    is_open: bool
    kernel_id: str
    etag: str


class NotebookTable:
    """The notebooks of one controller's sessions.

    Every method raises ``InfrastructureError`` when the file cannot be used.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def rows(self, session_id: str) -> list[NotebookRow]:
        """The notebooks that a session ever had open, in the order of their opening."""
        found = self._db.read(
            "SELECT file_id, path, is_open, kernel_id, etag FROM notebooks WHERE session_id = ?"
            " ORDER BY rowid",
            session_id,
        )
        return [NotebookRow(row[0], row[1], bool(row[2]), row[3], row[4]) for row in found]

    def opened(self, session_id: str, row: NotebookRow) -> None:
        """Note a notebook that is opened for the first time."""
        self._db.write(
            "INSERT INTO notebooks VALUES (?, ?, ?, ?, ?, ?, NULL)",
            *(row.file_id, session_id, row.path, int(row.is_open), row.kernel_id, row.etag),
        )

    def forget(self, file_id: str) -> None:
        """Forget a notebook."""
        self._db.write("DELETE FROM notebooks WHERE file_id = ?", file_id)

    def forget_all(self, session_id: str) -> None:
        """Forget the notebooks of a session that is over, unless they are large: those go when the
        journal is pruned."""
        rows = self._db.read(
            "SELECT sum(size_bytes) FROM notebook_updates WHERE file_id IN"
            " (SELECT file_id FROM notebooks WHERE session_id = ?)",
            session_id,
        )
        if (rows[0][0] or 0) > FORGET_AT_ONCE_BYTES:
            return
        self._db.write("DELETE FROM notebooks WHERE session_id = ?", session_id)

    def set_open(self, file_id: str, *, is_open: bool) -> None:
        """Note whether it is open."""
        self._db.write("UPDATE notebooks SET is_open = ? WHERE file_id = ?", int(is_open), file_id)

    def set_kernel(self, file_id: str, kernel_id: str) -> None:
        """Note which kernel runs it."""
        self._db.write("UPDATE notebooks SET kernel_id = ? WHERE file_id = ?", kernel_id, file_id)

    def set_base(self, file_id: str, etag: str, base: bytes | None) -> None:
        """Note what its file has; None where that is not kept."""
        self._db.write(
            "UPDATE notebooks SET etag = ?, base = ? WHERE file_id = ?", etag, base, file_id
        )

    def base(self, file_id: str) -> bytes | None:
        """What its file had when it was read or written last; None when that was not kept."""
        rows = self._db.read("SELECT base FROM notebooks WHERE file_id = ?", file_id)
        return rows[0][0] if rows else None

    # --- what runs

    def run_started(self, file_id: str, cell_id: str, execution_id: str) -> None:
        """Note in which cell an execution shows its outputs, before it is started."""
        self._db.write("INSERT INTO notebook_runs VALUES (?, ?, ?)", execution_id, file_id, cell_id)

    def run_ended(self, execution_id: str) -> None:
        """Note that an execution is over, with its outputs in the document."""
        self._db.write("DELETE FROM notebook_runs WHERE execution_id = ?", execution_id)

    def runs(self, file_id: str) -> list[tuple[str, str]]:
        """The executions whose outputs are not all in the document: each one's id and cell."""
        return self._db.read(
            "SELECT execution_id, cell_id FROM notebook_runs WHERE file_id = ? ORDER BY rowid",
            file_id,
        )

    # --- updates

    def updates(self, file_id: str) -> NotebookUpdates:
        """The updates of a notebook, to be read and written."""
        return NotebookUpdates(self._db, file_id)


def forget_ended(db: Database) -> Iterator[None]:
    """Forget the notebooks of sessions that are over, a little at a time."""
    ended = db.read(
        "SELECT file_id FROM notebooks JOIN sessions USING (session_id) WHERE ended_at IS NOT NULL"
    )
    for (file_id,) in ended:
        while rows := db.read(
            "SELECT seq, size_bytes FROM notebook_updates WHERE file_id = ? ORDER BY seq LIMIT 100",
            file_id,
        ):
            size = 0
            for seq, size_bytes in rows:
                db.write("DELETE FROM notebook_updates WHERE seq = ?", seq)
                size += size_bytes
                if size > FORGET_AT_ONCE_BYTES:
                    break
            yield
        db.write("DELETE FROM notebooks WHERE file_id = ?", file_id)
        yield


class NotebookUpdates:
    """The updates of one notebook; the ``UpdateStore`` of its document."""

    def __init__(self, db: Database, file_id: str) -> None:
        self._db = db
        self._file_id = file_id
        self._uncounted = COUNT_BYTES

    def load(self) -> Sequence[bytes]:
        """All that is kept, in its order."""
        rows = self._db.read(
            "SELECT data FROM notebook_updates WHERE file_id = ? ORDER BY seq", self._file_id
        )
        return [row[0] for row in rows]

    def append(self, update: bytes) -> None:
        """Keep one more.

        Raises:
            QuotaExceeded: The notebooks of its principal take too much, and it is not small.
        """
        if self._uncounted >= COUNT_BYTES:
            self._count(len(update))
        self._uncounted += len(update)
        self._insert(update)

    def replace(self, update: bytes) -> None:
        """Keep this one instead of all; for a moment both, which is the same."""
        last = self._db.read(
            "SELECT max(seq) FROM notebook_updates WHERE file_id = ?", self._file_id
        )
        self._insert(update)
        self._db.write(
            "DELETE FROM notebook_updates WHERE file_id = ? AND seq <= ?",
            *(self._file_id, last[0][0] or 0),
        )

    def _insert(self, update: bytes) -> None:
        self._db.write(
            "INSERT INTO notebook_updates (file_id, size_bytes, data) VALUES (?, ?, ?)",
            *(self._file_id, len(update), update),
        )

    def _count(self, more: int) -> None:
        rows = self._db.read(
            "SELECT sum(size_bytes) FROM notebook_updates WHERE file_id IN (SELECT n.file_id"
            " FROM notebooks AS n JOIN sessions AS s USING (session_id) WHERE s.principal ="
            " (SELECT s.principal FROM notebooks AS n JOIN sessions AS s USING (session_id)"
            " WHERE n.file_id = ?))",
            self._file_id,
        )
        kept: int = rows[0][0] or 0
        if kept <= KEEP_BYTES:
            self._uncounted = 0
        elif more > SMALL_BYTES or kept > KEEP_BYTES + RESERVE_BYTES:
            raise QuotaExceeded(
                f"Your notebooks take {kept:,} bytes, which is as many as may be.",
                remedy="Close sessions that you no longer need.",
            )
