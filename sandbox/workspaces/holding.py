"""A workspace that a session has: reading what is kept of it, and saving it again.

A save writes another archive and then replaces ``current.json``: whoever is killed in between
leaves the last one.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sandbox.errors import QuotaExceeded
from sandbox.policy.units import MIB
from sandbox.workspaces.folder import CURRENT, damaged, read_kept, translated, unusable, write
from sandbox.workspaces.models import Kept

RECOUNT_BYTES = 16 * MIB
"""After how much of a save the principal's other workspaces are counted again."""
PIECE_BYTES = MIB


class Held:
    """A workspace that a session has.

    Made by the store. Blocks, but for moments only, except where a method says more.
    """

    def __init__(self, place: Path, lock: IO[str], name: str, home: Path, quota_bytes: int) -> None:
        self.name = name
        self._place = place
        self._lock = lock
        self._home = home
        self._quota_bytes = quota_bytes

    def kept(self) -> Kept | None:
        """What was saved last; None when nothing was.

        Raises:
            InfrastructureError: It cannot be told any more.
        """
        return read_kept(self._place, self.name, strict=True)

    def pieces(self, kept: Kept) -> Iterator[bytes]:
        """The archive, piece by piece; the last step fails when it is not what was saved.

        Raises:
            InfrastructureError: It is damaged, cut, or gone.
        """
        digest = hashlib.sha256()
        try:
            with (self._place / kept.file).open("rb") as file:
                if os.fstat(file.fileno()).st_size != kept.size_bytes:
                    raise damaged(self.name)
                while piece := file.read(PIECE_BYTES):
                    digest.update(piece)
                    yield piece
        except FileNotFoundError as exc:
            raise damaged(self.name) from exc
        except OSError as exc:
            raise unusable(self.name, exc) from exc
        if digest.hexdigest() != kept.digest:
            raise damaged(self.name)

    @contextmanager
    def draft(self, limit_bytes: int) -> Generator[Draft]:
        """Write another archive; it counts once it is saved, and otherwise leaves nothing.

        Raises:
            InfrastructureError: It cannot be made.
        """
        path = self._place / f"{secrets.token_hex(16)}.tar"
        with translated(self.name):
            draft = Draft(self, path, limit_bytes)
        try:
            yield draft
        finally:
            # What stays of one that came to nothing is removed by the next `tidy`.
            with suppress(OSError):
                draft.close()
            if not draft.is_saved:
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def room(self, draft: Path) -> int:
        """How large a draft may become beside all else that the principal keeps, in bytes.

        What it will replace does not count, though it is there until then.
        """
        kept = self.kept()
        replaced = self._place / kept.file if kept else draft
        others = 0
        for path in self._home.glob("*/*.tar"):
            if path not in (draft, replaced):
                with suppress(FileNotFoundError):  # another save has replaced it
                    others += path.stat().st_size
        return self._quota_bytes - others

    def replace(self, kept: Kept) -> None:
        """Let an archive that was written be what is kept."""
        fresh = self._place / f"{CURRENT}.new"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(kept.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._place / CURRENT)
        folder = os.open(self._place, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.tidy()

    def tidy(self) -> None:
        """Remove what a killed controller began to write."""
        kept = read_kept(self._place, self.name, strict=False)
        if kept is None and (self._place / CURRENT).exists():
            return  # it cannot be read; nothing is thrown away
        for path in self._place.glob("*.tar"):
            if kept is None or path.name != kept.file:
                path.unlink()

    def close(self) -> None:
        """Leave it to the session, which outlives this controller."""
        self._lock.close()

    def release(self) -> None:
        """Let go of it; without anything saved nothing of it stays.

        Raises:
            InfrastructureError: That it is free cannot be noted; it is looked after when next asked
                for.
        """
        if self._lock.closed:
            return
        with translated(self.name), self._lock:
            write(self._lock, "")
            if not (self._place / CURRENT).exists():
                shutil.rmtree(self._place, ignore_errors=True)


class Draft:
    """An archive that is being written. All of it blocks: call it in a thread."""

    def __init__(self, held: Held, path: Path, limit_bytes: int) -> None:
        self._held = held
        self._path = path
        self._limit_bytes = limit_bytes
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._counted = -RECOUNT_BYTES
        self._room = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self.is_saved = False

    def write(self, data: bytes) -> None:
        """Write a piece.

        Raises:
            QuotaExceeded: It is too much for the workspace, or for its principal.
            InfrastructureError: It cannot be written.
        """
        self._size_bytes += len(data)
        if self._size_bytes > self._limit_bytes:
            raise QuotaExceeded(
                f"It takes more than {self._limit_bytes} bytes to keep, the most for its policy."
            )
        with translated(self._held.name):
            if self._size_bytes - self._counted >= RECOUNT_BYTES:
                self._room, self._counted = self._held.room(self._path), self._size_bytes
            if self._size_bytes > self._room:
                raise QuotaExceeded(
                    "Your workspaces take as much as they may together.",
                    remedy="Delete one with delete_workspace.",
                )
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        self._digest.update(data)

    def save(self, saved_at: float) -> Kept:
        """Put it in the place of the last one, when it differs from that.

        Raises:
            InfrastructureError: It cannot be written.
        """
        before = self._held.kept()
        kept = Kept(
            file=self._path.name,
            digest=self._digest.hexdigest(),
            size_bytes=self._size_bytes,
            saved_at=saved_at,
        )
        with translated(self._held.name):
            if before is not None and before.digest == kept.digest:
                kept = before.model_copy(update={"saved_at": saved_at})
            else:
                os.fsync(self._fd)
                self.is_saved = True
            self._held.replace(kept)
        return kept

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
