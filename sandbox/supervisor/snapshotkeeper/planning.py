"""What differs between the workspace and a snapshot: what is to be removed, put and mended."""

from __future__ import annotations

import errno
import os
import stat as modes
from dataclasses import dataclass, field

from sandbox.errors import Conflict
from sandbox.supervisor.paths import printable
from sandbox.supervisor.snapshotkeeper import contents
from sandbox.supervisor.snapshotkeeper.bounds import Bounds
from sandbox.supervisor.snapshotkeeper.descent import Descent, Elsewhere
from sandbox.supervisor.snapshotkeeper.taking import Known, Latest, stamp
from sandbox.supervisor.snapshotkeeper.trees import File, Folder, Link, Node, Other, Place

Kept = File | Link | Folder
"""What a snapshot has of a thing, so that it can be put back."""
Mending = tuple[str, File | Link, os.stat_result]


@dataclass(slots=True)
class Work:
    """What is to be done in one folder that stays."""

    place: Place
    info: os.stat_result
    """What it is now."""
    wanted: Folder
    removed: list[str] = field(default_factory=list[str])
    put: list[tuple[str, Kept]] = field(default_factory=list[tuple[str, Kept]])
    mended: list[Mending] = field(default_factory=list[Mending])
    """What has the right bytes, and not the mode or time that it had."""

    @property
    def is_none(self) -> bool:
        """Whether the folder is as it was, what is in the folders below it left aside."""
        same = _is_settled(self.info, self.wanted)
        return same and not (self.removed or self.put or self.mended)


@dataclass(slots=True)
class Plan:
    """All that is to be done, the folders in the order in which they are come by."""

    works: list[Work] = field(default_factory=list[Work])
    kept: int = 0
    """How many files and links are as they were."""
    lost: list[str] = field(default_factory=list[str])
    """FIFOs and the like that were there and cannot be put back."""
    known: Latest = field(default_factory=Latest)
    """The files that stay as they are."""


@dataclass(slots=True)
class _Found:
    """A name of a file as it is now, which is to be the file of a snapshot."""

    work: Work
    name: str
    info: os.stat_result | None
    """None where it is no file now, or has other bytes."""
    is_there: bool


class Planning:
    """One comparison of the workspace with a snapshot; it changes nothing.

    Args:
        root: A descriptor of the workspace.
        latest: What is known of its files.
    """

    def __init__(self, root: int, wanted: Folder, latest: Latest, bounds: Bounds) -> None:
        self._root = root
        self._wanted = wanted
        self._latest = latest
        self._bounds = bounds
        self._plan = Plan()
        self._files: dict[File, list[_Found]] = {}
        self._inside: set[File] = set()
        """Those of which a name is in a folder that is put as a whole."""

    def run(self) -> Plan:
        """Compare.

        Raises:
            TooMuchWork: It takes too long.
            Conflict: Something was replaced while it was looked at.
            OSError: Something cannot be read, or a folder was moved meanwhile.
        """
        with Descent(self._root) as at:
            work = Work(Place(None, ""), at.info, self._wanted)
            levels = [self._compare(at, work)]
            above = [work]
            while levels:
                if levels[-1]:
                    inner = self._enter(at, above[-1], *levels[-1].pop())
                    above.append(inner)
                    levels.append(self._compare(at, inner))
                else:
                    levels.pop()
                    above.pop()
                    if levels:
                        at.leave()
        self._decide()
        return self._plan

    def _enter(self, at: Descent, above: Work, name: str, wanted: Folder) -> Work:
        try:
            at.enter(name)
        except Elsewhere:
            raise Conflict(
                f"{printable(above.place.path(name))} is another filesystem, which it was not "
                "in the snapshot."
            ) from None
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            raise _replaced(above.place, name) from exc
        return Work(Place(above.place, name), at.info, wanted)

    def _compare(self, at: Descent, work: Work) -> list[tuple[str, Folder]]:
        """See to all but folders of a folder; returns those to go into, and what they were."""
        self._plan.works.append(work)
        below: list[tuple[str, Folder]] = []
        entries = work.wanted.entries
        there = at.names()
        for name in there:
            self._bounds.entry()
            wanted = entries.get(name)
            try:
                info = at.stat(name)
                is_ours = info.st_dev == at.device
                if isinstance(wanted, Folder) and modes.S_ISDIR(info.st_mode) and is_ours:
                    below.append((name, wanted))
                else:
                    self._look(at, work, name, info, wanted)
            except OSError as exc:
                if exc.errno not in (errno.ENOENT, errno.ESTALE, errno.ELOOP, errno.EINVAL):
                    raise
                raise _replaced(work.place, name) from exc
        for name in entries.keys() - set(there):
            self._missing(work, name, entries[name], is_there=False)
        return below

    def _look(
        self, at: Descent, work: Work, name: str, info: os.stat_result, wanted: Node | None
    ) -> None:
        """See to what is there now, which is no folder that is to stay."""
        if info.st_dev != at.device:
            if not isinstance(wanted, Other):
                raise Conflict(f"{printable(work.place.path(name))} is another filesystem now.")
        elif wanted is None:
            work.removed.append(name)
        elif isinstance(wanted, File) and modes.S_ISREG(info.st_mode):
            same = self._is_same(at, name, info, wanted)
            self._found(wanted, _Found(work, name, info if same else None, is_there=True))
        elif isinstance(wanted, Link) and _is_same_link(at, name, info, wanted):
            if info.st_mtime_ns == wanted.mtime_ns:
                self._plan.kept += 1
            else:
                work.mended.append((name, wanted, info))
        elif not (isinstance(wanted, Other) and wanted.kind == modes.S_IFMT(info.st_mode)):
            self._missing(work, name, wanted, is_there=True)

    def _missing(self, work: Work, name: str, wanted: Node, *, is_there: bool) -> None:
        """Plan for what is not there, or is something else."""
        if isinstance(wanted, File):
            self._found(wanted, _Found(work, name, None, is_there))
            return
        if is_there:
            work.removed.append(name)
        if isinstance(wanted, Other):
            self._plan.lost.append(printable(work.place.path(name)))
            return
        work.put.append((name, wanted))
        if isinstance(wanted, Folder):
            self._look_inside(work, name, wanted)

    def _look_inside(self, work: Work, name: str, folder: Folder) -> None:
        waiting = [(folder, Place(work.place, name))]
        while waiting:
            folder, place = waiting.pop()
            for below, node in folder.entries.items():
                if isinstance(node, Folder):
                    waiting.append((node, Place(place, below)))
                elif isinstance(node, File):
                    self._inside.add(node)
                elif isinstance(node, Other):
                    self._plan.lost.append(printable(place.path(below)))

    def _is_same(self, at: Descent, name: str, info: os.stat_result, wanted: File) -> bool:
        """Whether a file has the bytes that it had."""
        known = self._latest.files.get(info.st_ino)
        if known is not None and known.is_certain and known.stamp == stamp(info):
            return known.file.content.is_same(wanted.content)
        if info.st_size != wanted.content.size:
            return False
        self._bounds.time()
        with at.opened(name) as fd:
            return contents.is_same(fd, wanted.content)

    def _found(self, file: File, found: _Found) -> None:
        self._files.setdefault(file, []).append(found)

    def _decide(self) -> None:
        """Keep a file where all its names are of one file that has its bytes, and no other's."""
        taken: set[int] = set()
        for file, names in self._files.items():
            infos = [found.info for found in names]
            first = infos[0]
            inodes = {info.st_ino if info else -1 for info in infos}
            is_kept = first is not None and len(inodes) == 1 and file not in self._inside
            if first is not None and is_kept and first.st_ino not in taken:
                taken.add(first.st_ino)
                self._keep(file, names, first)
                continue
            for found in names:
                if found.is_there:
                    found.work.removed.append(found.name)
                found.work.put.append((found.name, file))

    def _keep(self, file: File, names: list[_Found], info: os.stat_result) -> None:
        if _is_settled(info, file):
            self._plan.kept += len(names)
            known = self._latest.files.get(info.st_ino)
            certain = known is not None and known.is_certain and known.stamp == stamp(info)
            self._plan.known.files[info.st_ino] = Known(stamp(info), file, is_certain=certain)
        else:
            names[0].work.mended.append((names[0].name, file, info))
            self._plan.kept += len(names) - 1


def _is_settled(info: os.stat_result, node: File | Folder) -> bool:
    return (modes.S_IMODE(info.st_mode), info.st_mtime_ns) == (node.mode, node.mtime_ns)


def _is_same_link(at: Descent, name: str, info: os.stat_result, wanted: Link) -> bool:
    return modes.S_ISLNK(info.st_mode) and os.readlink(name, dir_fd=at.here) == wanted.target


def _replaced(place: Place, name: str) -> Conflict:
    return Conflict(
        f"{printable(place.path(name))} was replaced by something else while it was looked at.",
        remedy="Nothing was changed. Stop what does that, and try again.",
    )
