"""A workspace on the controller's disk: its lock, what is kept of it, and errors in our words.

It is a folder with ``lock`` (flock(2) while a controller has it; its text is the id of the session
that does, also while that session outlives its controller), ``current.json`` (what was saved last)
and the archive that this names.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from sandbox.errors import Conflict, InfrastructureError
from sandbox.workspaces.models import NAME, Kept

CURRENT = "current.json"


def names(home: Path) -> set[str]:
    """The workspaces that there are in a principal's folder."""
    try:
        return {entry.name for entry in home.iterdir() if NAME.fullmatch(entry.name)}
    except FileNotFoundError:
        return set()


def locked(place: Path, name: str) -> IO[str]:
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
            raise in_use(name, holder) from exc
        try:
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        lock.close()  # it was deleted between the opening and the locking


def write(lock: IO[str], text: str) -> None:
    """Note who has a workspace; the empty text for nobody."""
    lock.seek(0)
    lock.truncate()
    lock.write(text)
    lock.flush()


def read_kept(place: Path, name: str, *, strict: bool) -> Kept | None:
    """What was saved last of a workspace; None when nothing was.

    Raises:
        InfrastructureError: It cannot be told any more; None, too, unless ``strict``.
    """
    try:
        with (place / CURRENT).open("rb") as file:
            return Kept.model_validate_json(file.read(64 * 1024))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as exc:
        if not strict:
            return None
        raise (unusable(name, exc) if isinstance(exc, OSError) else damaged(name)) from exc


def in_use(name: str, holder: str) -> Conflict:
    """The error that a session has the workspace."""
    session_id = holder.partition(" ")[0]
    return Conflict(
        f"The workspace {name!r} is in use by your session {session_id or 'that is opening'}.",
        remedy="Use that session, or close it first.",
    )


def damaged(name: str) -> InfrastructureError:
    """The error that what is kept is not what was saved."""
    return InfrastructureError(
        f"What was kept of the workspace {name!r} is damaged, so it was not read in.",
        remedy="Restore it from a backup of the state directory, or delete it with "
        "delete_workspace to begin again.",
    )


@contextmanager
def translated(name: str) -> Generator[None]:
    """Turn what the disk refuses into an error of ours."""
    try:
        yield
    except OSError as exc:
        raise unusable(name, exc) from exc


def unusable(name: str, error: OSError) -> InfrastructureError:
    """The error that the disk refused something; an empty name stands for all workspaces."""
    whose = f"The workspace {name!r}" if name else "Your workspaces"
    return InfrastructureError(
        f"{whose} cannot be used on the controller's disk: {error.strerror or error}."
    )
