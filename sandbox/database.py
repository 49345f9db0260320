"""A small SQLite file of our own: private to its user, checked when opened, errors translated.

Its schema has a version. A file of an earlier one is brought up to date when it is opened, in one
transaction; one of a later version is refused and left as it is.

Calls are synchronous: a read takes some tens of microseconds, and so does a write, which goes to
the write-ahead log without waiting for the disk. Other processes may read and write beside us.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.errors import ConfigError, InfrastructureError

BUSY_TIMEOUT_S = 2.0
# The second one, of the index of the write-ahead log.
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


class Database:
    """One file.

    Args:
        path: Where it is; made when absent, with mode 0600.
        versions: For each version of the schema, from the first one on, the statements that make it
            of the one before.
        pragmas: What is set before a new file gets its first table.

    Raises:
        ConfigError: It is not such a file, is damaged, or was written by a newer version.
    """

    def __init__(
        self,
        path: Path,
        *,
        application_id: int,
        versions: Sequence[Sequence[str]],
        what: str,
        remedy: str,
        pragmas: Sequence[str] = (),
    ) -> None:
        self.path = path
        self._what = what
        self._remedy = remedy
        try:
            # SQLite gives the files beside it the mode that it finds here.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)
            self._identity = _identity(path)
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        except (OSError, sqlite3.Error) as exc:
            raise self._unusable(str(exc), exc) from exc
        try:
            self._prepare(application_id, versions, pragmas)
        except sqlite3.Error as exc:
            self._db.close()
            raise self._unusable(str(exc), exc) from exc
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
        """The rows of a query; none for a text that UTF-8 cannot express, for no row has one.

        Raises:
            InfrastructureError: The file cannot be read.
        """
        try:
            with self._translated():
                return self._db.execute(sql, values).fetchall()
        except UnicodeEncodeError:
            return []

    def write(self, sql: str, *values: Any) -> int:
        """Run one statement, which is one transaction, and return how many rows it changed.

        Raises:
            InfrastructureError: The file cannot be written.
        """
        try:
            with self._translated():
                return self._db.execute(sql, values).rowcount
        except UnicodeEncodeError as exc:
            raise InfrastructureError(f"{self.path} cannot hold this text: {exc}.") from exc

    def give_back(self, pages: int) -> None:
        """Give the space of so many free pages back to the file system.

        Raises:
            InfrastructureError: The file cannot be written.
        """
        with self._translated():  # a script: sqlite3 would step any other statement only once
            self._db.executescript(f"PRAGMA incremental_vacuum({pages})")

    def _prepare(
        self, application_id: int, versions: Sequence[Sequence[str]], pragmas: Sequence[str]
    ) -> None:
        if not self._is_new():
            self._check(application_id, len(versions))
        for pragma in (*pragmas, "journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("BEGIN IMMEDIATE")  # two processes may both find it new
        try:
            found = self._pragma("user_version")
            if found == 0:
                self._db.execute(f"PRAGMA application_id = {application_id}")
            for statements in versions[found:]:
                for statement in statements:
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {max(found, len(versions))}")
        except BaseException:
            if self._db.in_transaction:  # a full disk has undone it already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _is_new(self) -> bool:
        has_tables = self._db.execute("SELECT 1 FROM sqlite_schema").fetchone()
        return self._pragma("user_version") == 0 and not has_tables

    def _check(self, application_id: int, version: int) -> None:
        if self._pragma("application_id") != application_id:
            raise self._unusable("it is some other program's database")
        if self._pragma("user_version") > version:
            raise ConfigError(
                f"{self.path} was written by a newer version of this program.",
                remedy="Use that version, or set SANDBOX_STATE_DIR to another directory.",
            )
        if (verdict := self._pragma("quick_check(1)")) != "ok":
            raise self._unusable(str(verdict))

    def _pragma(self, name: str) -> Any:
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def _unusable(self, reason: str, cause: Exception | None = None) -> ConfigError:
        return ConfigError(
            f"The {self._what} {self.path} cannot be used: {reason}.",
            remedy=self._remedy_for(cause),
        )

    def _remedy_for(self, cause: Exception | None) -> str:
        """What to do: a full disk is no reason to give up what is on it."""
        code = getattr(cause, "sqlite_errorcode", None)
        is_full = code in _FULL or getattr(cause, "errno", None) == errno.ENOSPC
        return "Free some disk space there." if is_full else self._remedy

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise InfrastructureError(
                f"The controller cannot use its {self._what} {self.path}: {exc}.",
                remedy=self._remedy_for(exc),
            ) from exc


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
