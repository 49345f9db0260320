"""Files of packages on disk, each under its hash, which is verified whenever one is read.

All here blocks. Several controllers may share a folder: a file appears whole or not at all, and one
that goes while somebody reads it stays open for that reader.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

PIECE = 1024 * 1024
ABANDONED_S = 3600.0
"""After which what is left of a download that never ended is removed."""
_PART = "part-"


class FileStore:
    """A folder of files by their SHA-256.

    Args:
        limit_bytes: Of all files together; what was not asked for longest goes first.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self.limit_bytes = limit_bytes

    def open(self, sha256: str) -> BinaryIO | None:
        """A file, verified, at its beginning; None when it is not there, or was damaged."""
        path = self._folder / sha256
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        file = os.fdopen(descriptor, "rb")
        try:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == sha256:
                os.utime(descriptor)
                file.seek(0)
                return file
        except OSError:
            pass
        file.close()
        with suppress(OSError):
            path.unlink()
        return None

    def add(self, sha256: str, write: Callable[[BinaryIO], None]) -> None:
        """Keep a file that ``write`` writes.

        Raises:
            ValueError: What was written has another hash.
            OSError: It cannot be written, or kept.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._folder / f"{_PART}{uuid.uuid4().hex}"
        try:
            with part.open("x+b") as file:
                write(file)
                file.seek(0)
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise ValueError("what it serves is not what its page says")
            part.replace(self._folder / sha256)
        finally:
            part.unlink(missing_ok=True)
        self._make_room()

    def _make_room(self) -> None:
        kept: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            with suppress(OSError):
                stat = path.stat()
                if not path.name.startswith(_PART):
                    kept.append((stat.st_mtime, stat.st_size, path))
                elif stat.st_mtime < time.time() - ABANDONED_S:
                    path.unlink()
        excess = sum(size for _, size, _ in kept) - self.limit_bytes
        for _, size, path in sorted(kept):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size
