"""A small SQLite file of our own: private to its user, checked when opened, errors translated.

Calls are synchronous: a read takes some tens of microseconds, and so does a write, which goes to
the write-ahead log without waiting for the disk. Other processes may read and write beside us.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.errors import ConfigError, InfrastructureError

BUSY_TIMEOUT_S = 2.0


class Database:
    """One file.

    Args:
        path: Where it is; made when absent, with mode 0600.
        application_id: Tells it from other programs' files.
        version: Of its schema.
        schema: The statements that make its tables.
        remedy: What to do when it cannot be used.

    Raises:
        ConfigError: It is not such a file, is damaged, or was written by a newer version.
    """

    def __init__(
        self, path: Path, *, application_id: int, version: int, schema: Sequence[str], remedy: str
    ) -> None:
        self.path = path
        self._remedy = remedy
        try:
            # SQLite gives the files beside it the mode that it finds here.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)
            self._identity = _identity(path)
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        except (OSError, sqlite3.Error) as exc:
            raise self._unusable(str(exc)) from exc
        try:
            self._prepare(application_id, version, schema)
        except sqlite3.Error as exc:
            self._db.close()
            raise self._unusable(str(exc)) from exc
        except ConfigError:
            self._db.close()
            raise

    @property
    def is_replaced(self) -> bool:
        """Whether the file at the path is no longer the one that was opened."""
        return _identity(self.path) != self._identity

    def close(self) -> None:
        """Close the file; harmless when done already."""
        self._db.close()

    def read(self, sql: str, *values: Any) -> list[Any]:
        """The rows of a query.

        Raises:
            InfrastructureError: The file cannot be read.
        """
        with self._translated():
            return self._db.execute(sql, values).fetchall()

    def write(self, sql: str, *values: Any) -> int:
        """Run one statement, which is one transaction, and return how many rows it changed.

        Raises:
            InfrastructureError: The file cannot be written.
        """
        with self._translated():
            return self._db.execute(sql, values).rowcount

    def _prepare(self, application_id: int, version: int, schema: Sequence[str]) -> None:
        def pragma(name: str) -> Any:
            return self._db.execute(f"PRAGMA {name}").fetchone()[0]

        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN IMMEDIATE")  # two processes may both find it new
        try:
            found = pragma("user_version")
            if found == 0 and not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                for statement in schema:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {application_id}")
                self._db.execute(f"PRAGMA user_version = {version}")
            elif pragma("application_id") != application_id:
                raise self._unusable("it is some other program's database")
            elif found != version:
                raise self._unusable("it was written by another version of this program")
            elif (verdict := pragma("quick_check(1)")) != "ok":
                raise self._unusable(str(verdict))
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _unusable(self, reason: str) -> ConfigError:
        return ConfigError(f"{self.path} cannot be used: {reason}.", remedy=self._remedy)

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeEncodeError) as exc:
            raise InfrastructureError(
                f"The controller cannot use {self.path}: {exc}.", remedy=self._remedy
            ) from exc


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
