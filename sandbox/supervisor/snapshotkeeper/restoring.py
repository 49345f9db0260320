"""Putting a snapshot back: all is made beside, then put in its place, or nothing is changed."""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from sandbox.errors import InfrastructureError
from sandbox.supervisor.paths import printable
from sandbox.supervisor.snapshotkeeper.bounds import Bounds
from sandbox.supervisor.snapshotkeeper.descent import Descent
from sandbox.supervisor.snapshotkeeper.planning import Plan, Planning, Work
from sandbox.supervisor.snapshotkeeper.staging import Staging, check_room, no_space
from sandbox.supervisor.snapshotkeeper.taking import Latest
from sandbox.supervisor.snapshotkeeper.trees import File, Folder, Link, Place, nodes


@dataclass(slots=True)
class Restored:
    """What a restore has done."""

    written: int = 0
    """Files and links that were put back."""
    written_bytes: int = 0
    removed: int = 0
    """Things that were not there, or were different, folders counted."""
    mended: int = 0
    """Files, links and folders that got their mode or time back, and had the rest."""
    kept: int = 0
    """Names of files and links that were as they were."""
    lost: list[str] = field(default_factory=list[str])
    """FIFOs, sockets and the like that were there and are not any more."""
    left: str = ""
    """A folder with what was removed, where that cannot be deleted."""


def restore(root: int, wanted: Folder, latest: Latest, bounds: Bounds) -> tuple[Restored, Latest]:
    """Make the workspace what it was in a snapshot.

    Args:
        root: A descriptor of the workspace.
        latest: What is known of its files.

    Returns:
        What was done, and what the workspace is now known to be.

    Raises:
        SandboxError: It was not done, and nothing was changed; or, if the error is an
            ``InfrastructureError``, it says what could not be taken back.
        OSError: It was not done, and nothing was changed.
    """
    plan = Planning(root, wanted, latest, bounds).run()
    done = Restored(kept=plan.kept, lost=plan.lost)
    if not all(work.is_none for work in plan.works):
        check_room(root, plan)
        _Restoring(root, wanted, plan, bounds, done).run()
    plan.known.root = wanted
    return done, plan.known


@dataclass(frozen=True, slots=True)
class _Step:
    """How one change is taken back."""

    place: Place
    name: str
    undo: Callable[[Descent], None]


class _Restoring:
    def __init__(
        self, root: int, wanted: Folder, plan: Plan, bounds: Bounds, done: Restored
    ) -> None:
        self._root = root
        self._wanted = wanted
        self._plan = plan
        self._bounds = bounds
        self._done = done
        self._steps: list[_Step] = []

    def run(self) -> None:
        """Do it all, or take back what was done."""
        before = os.fstat(self._root)
        staging = Staging(self._root, self._bounds)
        try:
            made = self._make(staging)
            self._change(staging, made)
        except BaseException as exc:
            self._take_back(staging, exc)
            with suppress(OSError):
                staging.remove()
            _settle_root(self._root, before.st_mode, before.st_mtime_ns)
            raise
        finally:
            staging.close()
        self._done.written, self._done.written_bytes = staging.written, staging.written_bytes
        try:
            self._done.removed = staging.remove() - staging.own
        except OSError:  # somebody puts more into it than can be deleted
            self._done.left = staging.name
        with suppress(OSError):  # its time alone, which that has changed
            _settle_root(self._root, self._wanted.mode, self._wanted.mtime_ns)

    def _make(self, staging: Staging) -> dict[tuple[int, str], str]:
        """Make what is new, beside what is there; returns under which names."""
        seen: set[File] = set()
        linked: set[File] = set()
        for node in nodes(self._wanted):
            if isinstance(node, File):
                (linked if node in seen else seen).add(node)
        try:
            return {
                (id(work), name): staging.make(node, linked)
                for work in self._plan.works
                for name, node in work.put
            }
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise no_space(self._root, self._plan) from exc
            raise

    def _change(self, staging: Staging, made: dict[tuple[int, str], str]) -> None:
        """Change the workspace, in steps that can be taken back."""
        with Descent(self._root) as at:
            for work in self._plan.works:
                if work.removed or work.put:
                    at.go(work.place)
                for name in work.removed:
                    self._move(at, work.place, name, staging)
                for name, _ in work.put:
                    self._put(at, work.place, name, staging, made[id(work), name])
            # What is in a folder comes after it in the list, and is to have its mode before.
            for work in reversed(self._plan.works):
                self._settle(at, work)
        _settle_root(self._root, self._wanted.mode, self._wanted.mtime_ns)

    def _move(self, at: Descent, place: Place, name: str, staging: Staging) -> None:
        """Let something make way."""
        kept, staged = staging.new_name(), staging.fd
        info = at.stat(name)
        if modes.S_ISDIR(info.st_mode) and modes.S_IMODE(info.st_mode) & 0o700 != 0o700:
            self._open_up(at, place, name, modes.S_IMODE(info.st_mode))
        os.rename(name, kept, src_dir_fd=at.here, dst_dir_fd=staged)

        def undo(at: Descent) -> None:
            os.rename(kept, name, src_dir_fd=staged, dst_dir_fd=at.here)

        self._steps.append(_Step(place, name, undo))

    def _open_up(self, at: Descent, place: Place, name: str, mode: int) -> None:
        """Let a folder be moved, which its own mode can forbid."""

        def undo(at: Descent) -> None:
            with at.held(name, modes.S_IFDIR) as (path, _):
                os.chmod(path, mode)

        self._steps.append(_Step(place, name, undo))
        with at.held(name, modes.S_IFDIR) as (path, _):
            os.chmod(path, mode | 0o700)

    def _put(self, at: Descent, place: Place, name: str, staging: Staging, made: str) -> None:
        staged = staging.fd
        os.rename(made, name, src_dir_fd=staged, dst_dir_fd=at.here)

        def undo(at: Descent) -> None:
            os.rename(name, made, src_dir_fd=at.here, dst_dir_fd=staged)

        self._steps.append(_Step(place, name, undo))

    def _settle(self, at: Descent, work: Work) -> None:
        """Give modes and times to what is in a folder, and then to the folder."""
        for name, node in work.put:
            if isinstance(node, Folder):
                at.go(work.place)
                at.settle(name, modes.S_IFDIR, node.mode, node.mtime_ns)
        for name, node, info in work.mended:
            at.go(work.place)
            self._mend(at, work.place, name, node, info)
        above = work.place.parent
        if above is not None and not work.is_none:
            at.go(above)
            self._mend(at, above, work.place.name, work.wanted, work.info)

    def _mend(
        self, at: Descent, place: Place, name: str, node: File | Link | Folder, was: os.stat_result
    ) -> None:
        kind = modes.S_IFMT(was.st_mode)

        def undo(at: Descent) -> None:
            if kind == modes.S_IFLNK:
                _settle_link(at, name, was.st_mtime_ns)
            else:
                at.settle(name, kind, modes.S_IMODE(was.st_mode), was.st_mtime_ns)

        self._steps.append(_Step(place, name, undo))  # first, since it can be done by half
        if isinstance(node, Link):
            _settle_link(at, name, node.mtime_ns)
        else:
            at.settle(name, kind, node.mode, node.mtime_ns)
        self._done.mended += 1

    def _take_back(self, staging: Staging, cause: BaseException) -> None:
        """Undo every step, the last one first.

        Raises:
            InfrastructureError: Some could not be undone.
        """
        if not self._steps:
            return
        failed: list[str] = []
        for step in reversed(self._steps):
            try:
                with Descent(self._root) as at:
                    at.go(step.place)
                    step.undo(at)
            except OSError:
                failed.append(printable(step.place.path(step.name)))
        for work in reversed(self._plan.works):  # whose times the steps have changed
            above = work.place.parent
            if above is not None and (work.removed or work.put):
                mode, mtime_ns = modes.S_IMODE(work.info.st_mode), work.info.st_mtime_ns
                with suppress(OSError), Descent(self._root) as at:
                    at.go(above)
                    at.settle(work.place.name, modes.S_IFDIR, mode, mtime_ns)
        if failed:
            raise InfrastructureError(
                f"The snapshot could not be put back ({cause}), and of {len(self._steps)} steps "
                f"{len(failed)} could not be undone: {', '.join(failed[:10])}. What was there "
                f"before is in the folder {staging.name} of the workspace.",
                remedy="The snapshot is still there: try again when nothing else writes files.",
            ) from cause


def _settle_root(root: int, mode: int, mtime_ns: int) -> None:
    os.fchmod(root, modes.S_IMODE(mode))
    os.utime(root, ns=(mtime_ns, mtime_ns))


def _settle_link(at: Descent, name: str, mtime_ns: int) -> None:
    os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=at.here, follow_symlinks=False)
