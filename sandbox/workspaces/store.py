"""Where named workspaces are kept, which there are, and who has each.

The state directory has a folder for each principal, in which each workspace is a folder
(``sandbox.workspaces.folder``). Archives are never looked into.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from pathlib import Path

from sandbox.errors import NotFound, QuotaExceeded
from sandbox.workspaces.folder import in_use, locked, names, read_kept, translated, write
from sandbox.workspaces.holding import Held
from sandbox.workspaces.models import Kept, WorkspaceInfo, check_workspace


class WorkspaceStore:
    """The workspaces of all principals, each of which may have so many and so many bytes."""

    def __init__(self, folder: Path, *, quota_bytes: int, most: int) -> None:
        self._folder = folder
        self._quota_bytes = quota_bytes
        self._most = most

    def take(self, principal: str, name: str, holder: str) -> Held:
        """Have a workspace, new or as it was saved, until it is let go.

        Args:
            holder: The id of the session that is to have it and, after a space, what else tells
                whether that still exists.

        Raises:
            InvalidRequest: It cannot be a workspace's name.
            Conflict: Another session has it.
            QuotaExceeded: The principal has as many as may be.
        """
        home = self._home(principal)
        place = home / check_workspace(name)
        with translated(name):
            if not place.exists() and len(names(home)) >= self._most:
                raise QuotaExceeded(
                    f"You have {self._most} workspaces, and may not have more.",
                    remedy="Delete one with delete_workspace; list_workspaces shows them.",
                )
            lock = locked(place, name)
            if (held_by := lock.read()) not in ("", holder):
                lock.close()
                raise in_use(name, held_by)
            write(lock, holder)
            held = Held(place, lock, name, home, self._quota_bytes)
            held.tidy()
        return held

    def list(self, principal: str) -> list[WorkspaceInfo]:
        """The principal's workspaces, by name."""
        home = self._home(principal)
        with translated(""):
            found = sorted(names(home))
        return [self._info(principal, name) for name in found]

    def kept(self, principal: str, name: str) -> Kept | None:
        """What was saved last of a workspace; None when nothing was, or it cannot be told."""
        return read_kept(self._home(principal) / check_workspace(name), name, strict=False)

    def holder(self, principal: str, name: str) -> str:
        """Who has, or last had and did not let go of, a workspace, as it was taken."""
        try:
            return (self._home(principal) / check_workspace(name) / "lock").read_text()[:200]
        except OSError:
            return ""

    def forget(self, principal: str, name: str, holder: str) -> None:
        """Note that a session that did not let go of its workspace is gone.

        Raises:
            Conflict: A controller has it still.
        """
        place = self._home(principal) / check_workspace(name)
        if not place.is_dir():
            return
        with translated(name), locked(place, name) as lock:
            if lock.read() == holder:
                write(lock, "")

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
        with translated(name), locked(place, name) as lock:
            if holder := lock.read():
                raise in_use(name, holder)
            gone = home / f".gone-{secrets.token_hex(8)}"
            place.rename(gone)
            for leftover in home.glob(".gone-*"):
                shutil.rmtree(leftover)

    def _home(self, principal: str) -> Path:
        return self._folder / hashlib.sha256(principal.encode()).hexdigest()[:32]

    def _info(self, principal: str, name: str) -> WorkspaceInfo:
        kept = self.kept(principal, name)
        return WorkspaceInfo(
            name=name,
            size_bytes=kept.size_bytes if kept else 0,
            saved_at=kept.saved_at if kept else None,
            session_id=self.holder(principal, name).partition(" ")[0],
        )
