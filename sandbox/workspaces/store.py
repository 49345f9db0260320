"""Where named workspaces are kept: folders of the state directory, one for each principal.

A workspace is a folder with ``lock`` (flock(2) while a controller has it; its text is the id of the
session that does, also while that session outlives its controller), ``current.json`` (what was
saved last) and the archive that this names. A save writes another archive and then replaces
``current.json``: whoever is killed in between leaves the last one. Archives are never looked into.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandbox.errors import (
    Conflict,
    InfrastructureError,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
)
from sandbox.policy.units import MIB

RECOUNT_BYTES = 16 * MIB
"""After how much of a save the principal's other workspaces are counted again."""
PIECE_BYTES = MIB

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_CURRENT = "current.json"


class Kept(BaseModel):
    """What was saved last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, Field(pattern=r"\A[0-9a-f]{32}\.tar\z")]
    digest: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
    """SHA-256 of the archive."""
    size_bytes: Annotated[int, Field(ge=0)]
    saved_at: float
    """Unix time, seconds."""


class WorkspaceInfo(BaseModel):
    """A named workspace of the caller's."""

    model_config = ConfigDict(frozen=True)

    name: str
    size_bytes: int
    """Of what is kept, with all that it takes to keep it."""
    saved_at: float | None
    """Unix time of what is kept, seconds; null when nothing was saved yet."""
    session_id: str
    """The session that has it, or had it when it was lost; empty for none."""


class WorkspaceStore:
    """The workspaces of all principals.

    Args:
        folder: Where they are; made when absent.
        quota_bytes: What the workspaces of one principal may take together.
        most: How many one principal may have.
    """

    def __init__(self, folder: Path, *, quota_bytes: int, most: int) -> None:
        self._folder = folder
        self._quota_bytes = quota_bytes
        self._most = most

    def take(self, principal: str, name: str, session_id: str) -> Held:
        """Have a workspace, new or as it was saved, until it is let go.

        Raises:
            InvalidRequest: It cannot be a workspace's name.
            Conflict: Another session has it.
            QuotaExceeded: The principal has as many as may be.
        """
        home = self._home(principal)
        place = home / check_workspace(name)
        with _translated(name):
            if not place.exists() and len(_names(home)) >= self._most:
                raise QuotaExceeded(
                    f"You have {self._most} workspaces, and may not have more.",
                    remedy="Delete one with delete_workspace; list_workspaces shows them.",
                )
            lock = _locked(place, name)
            holder = lock.read()
            if holder not in ("", session_id):
                lock.close()
                raise _in_use(name, holder)
            _write(lock, session_id)
            held = Held(place, lock, name, home, self._quota_bytes)
            held.tidy()
        return held

    def list(self, principal: str) -> list[WorkspaceInfo]:
        """The principal's workspaces, by name."""
        home = self._home(principal)
        found: list[WorkspaceInfo] = []
        for name in sorted(_names(home)):
            kept = _kept(home / name, name, strict=False)
            info = WorkspaceInfo(
                name=name,
                size_bytes=kept.size_bytes if kept else 0,
                saved_at=kept.saved_at if kept else None,
                session_id=self.holder(principal, name),
            )
            found.append(info)
        return found

    def kept(self, principal: str, name: str) -> Kept | None:
        """What was saved last of a workspace; None when nothing was, or it cannot be told."""
        return _kept(self._home(principal) / check_workspace(name), name, strict=False)

    def holder(self, principal: str, name: str) -> str:
        """The id of the session that has, or last had and did not let go of, a workspace."""
        try:
            return (self._home(principal) / check_workspace(name) / "lock").read_text()[:200]
        except OSError:
            return ""

    def forget(self, principal: str, name: str, session_id: str) -> None:
        """Note that a session that did not let go of its workspace is gone.

        Raises:
            Conflict: A controller has it still.
        """
        place = self._home(principal) / check_workspace(name)
        if not place.is_dir():
            return
        with _translated(name), _locked(place, name) as lock:
            if lock.read() == session_id:
                _write(lock, "")

    def delete(self, principal: str, name: str) -> None:
        """Delete a workspace with all that was kept of it.

        Raises:
            NotFound: The principal has no such workspace.
            Conflict: A session has it.
        """
        home = self._home(principal)
        place = home / check_workspace(name)
        if not place.is_dir():
            raise NotFound(
                f"You have no workspace {name!r}.", remedy="list_workspaces shows those you have."
            )
        with _translated(name), _locked(place, name) as lock:
            if holder := lock.read():
                raise _in_use(name, holder)
            gone = home / f".gone-{secrets.token_hex(8)}"
            place.rename(gone)
            for leftover in home.glob(".gone-*"):
                shutil.rmtree(leftover)

    def _home(self, principal: str) -> Path:
        return self._folder / hashlib.sha256(principal.encode()).hexdigest()[:32]


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
        return _kept(self._place, self.name, strict=True)

    def pieces(self, kept: Kept) -> Iterator[bytes]:
        """The archive, piece by piece; the last step fails when it is not what was saved.

        Raises:
            InfrastructureError: It is damaged, cut, or gone.
        """
        digest = hashlib.sha256()
        try:
            with (self._place / kept.file).open("rb") as file:
                if os.fstat(file.fileno()).st_size != kept.size_bytes:
                    raise _damaged(self.name)
                while piece := file.read(PIECE_BYTES):
                    digest.update(piece)
                    yield piece
        except OSError as exc:
            raise _damaged(self.name) from exc
        if digest.hexdigest() != kept.digest:
            raise _damaged(self.name)

    @contextmanager
    def draft(self, limit_bytes: int) -> Generator[Draft]:
        """Write another archive; it counts once it is saved, and otherwise leaves nothing.

        Args:
            limit_bytes: The most that it may be.
        """
        path = self._place / f"{secrets.token_hex(16)}.tar"
        draft = Draft(self, path, limit_bytes)
        try:
            yield draft
        finally:
            draft.close()
            if not draft.is_saved:
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
        fresh = self._place / f"{_CURRENT}.new"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(kept.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._place / _CURRENT)
        folder = os.open(self._place, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.tidy()

    def tidy(self) -> None:
        """Remove what a killed controller began to write."""
        kept = _kept(self._place, self.name, strict=False)
        if kept is None and (self._place / _CURRENT).exists():
            return  # it cannot be read; nothing is thrown away
        for path in self._place.glob("*.tar"):
            if kept is None or path.name != kept.file:
                path.unlink()

    def close(self) -> None:
        """Leave it to the session, which outlives this controller."""
        self._lock.close()

    def release(self) -> None:
        """Let go of it; without anything saved nothing of it stays."""
        if self._lock.closed:
            return
        _write(self._lock, "")
        if not (self._place / _CURRENT).exists():
            shutil.rmtree(self._place, ignore_errors=True)
        self._lock.close()


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
        with _translated(self._held.name):
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
        with _translated(self._held.name):
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


def check_workspace(name: str) -> str:
    """A name that a workspace can have.

    Raises:
        InvalidRequest: It is none.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "A workspace's name has 1 to 64 of a-z, 0-9, '-', '_' and '.', and begins with a "
            "letter or digit."
        )
    return name


def _names(home: Path) -> set[str]:
    try:
        return {entry.name for entry in home.iterdir() if _NAME.fullmatch(entry.name)}
    except FileNotFoundError:
        return set()


def _locked(place: Path, name: str) -> IO[str]:
    """The lock file of a workspace, locked; its folder is made when absent.

    Raises:
        Conflict: A controller has it.
    """
    while True:
        for folder in (place.parents[1], place.parent, place):
            folder.mkdir(mode=0o700, exist_ok=True)
        path = place / "lock"
        try:
            lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
        except FileNotFoundError:
            continue  # it was deleted meanwhile
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = lock.read()
            lock.close()
            raise _in_use(name, holder) from exc
        try:
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        lock.close()  # it was deleted between the opening and the locking


def _write(lock: IO[str], text: str) -> None:
    lock.seek(0)
    lock.truncate()
    lock.write(text)
    lock.flush()


def _kept(place: Path, name: str, *, strict: bool) -> Kept | None:
    try:
        with (place / _CURRENT).open("rb") as file:
            return Kept.model_validate_json(file.read(64 * 1024))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as exc:
        if strict:
            raise _damaged(name) from exc
        return None


def _in_use(name: str, session_id: str) -> Conflict:
    return Conflict(
        f"The workspace {name!r} is in use by your session {session_id or 'that is opening'}.",
        remedy="Use that session, or close it first.",
    )


def _damaged(name: str) -> InfrastructureError:
    return InfrastructureError(
        f"What was kept of the workspace {name!r} is damaged, so it was not read in.",
        remedy="Restore it from a backup of the state directory, or delete it with "
        "delete_workspace to begin again.",
    )


@contextmanager
def _translated(name: str) -> Generator[None]:
    try:
        yield
    except OSError as exc:
        raise InfrastructureError(
            f"The workspace {name!r} cannot be used on the controller's disk: {exc.strerror}."
        ) from exc
