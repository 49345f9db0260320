"""Taking a snapshot: going through the workspace and copying what has changed since the last."""

from __future__ import annotations

import errno
import os
import stat as modes
import time
from dataclasses import dataclass, field

from sandbox.errors import Conflict
from sandbox.supervisor.paths import printable
from sandbox.supervisor.snapshotkeeper import contents, mappings
from sandbox.supervisor.snapshotkeeper.bounds import Bounds
from sandbox.supervisor.snapshotkeeper.descent import Descent, Elsewhere
from sandbox.supervisor.snapshotkeeper.trees import (
    Content,
    File,
    Folder,
    Link,
    Node,
    Other,
    Place,
)

ATTEMPTS = 3
TICK_NS = 20_000_000
"""A clock of files stands still for less than this: what was changed after it was read has another
time, unless it was changed in this moment before."""

_REPLACED = (errno.ESTALE, errno.ELOOP, errno.EINVAL, errno.ENOTDIR, errno.ENXIO)
"""What is no longer what it was when it was looked at, told by what is then done with it."""

Stamp = tuple[int, int, int, int]


def stamp(info: os.stat_result) -> Stamp:
    """What changes when a file is written to, or its mode is changed: whoever writes to it."""
    return (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode)


@dataclass(slots=True)
class Known:
    """A file as it was found last; ``is_certain`` if the same stamp means the same bytes."""

    stamp: Stamp
    file: File
    is_certain: bool


@dataclass(slots=True)
class Latest:
    """What the workspace is known to have been last: of which a snapshot copies nothing again."""

    root: Folder | None = None
    files: dict[int, Known] = field(default_factory=dict[int, Known])
    """By inode."""

    def doubt(self, mapped: frozenset[int] | None) -> None:
        """Let no stamp of what is mapped tell anything."""
        for inode in self.files if mapped is None else mapped.intersection(self.files):
            self.files[inode].is_certain = False


@dataclass(slots=True)
class Taken:
    """A whole snapshot, and how it came to be."""

    root: Folder
    files: int = 0
    """Names of files, each link to one counted."""
    folders: int = 0
    links: int = 0
    bytes: int = 0
    """Of the files, without their holes; those of several names once."""
    copied_bytes: int = 0
    changing: list[str] = field(default_factory=list[str])
    """Files that somebody wrote to each time that they were read: they may be half of this and
    half of that."""
    left_out: list[str] = field(default_factory=list[str])
    """FIFOs, sockets and the like."""


class Taking:
    """One taking of a snapshot.

    Args:
        root: A descriptor of the workspace.
        latest: What it was last.
    """

    def __init__(self, root: int, latest: Latest, bounds: Bounds) -> None:
        self._root = root
        self._before = latest
        self._now = Latest()
        self._bounds = bounds
        self._trusts = mappings.tells_of_writes(root)
        self._several: dict[int, File] = {}

    def run(self) -> tuple[Taken, Latest]:
        """Take it.

        Returns:
            It, and what the workspace is now known to be.

        Raises:
            QuotaExceeded: It does not fit.
            TooMuchWork: It takes too long.
            Conflict: Something was replaced by something else each time that it was looked at.
            OSError: Something cannot be read, or a folder was moved meanwhile.
        """
        mapped = mappings.mapped_inodes() if self._trusts else None
        with Descent(self._root) as at:
            root = Folder(modes.S_IMODE(at.info.st_mode), at.info.st_mtime_ns)
            self._taken = Taken(root)
            self._now.root = root
            place = Place(None, "")
            levels = [(place, root, self._fill(at, place, root, self._before.root))]
            while levels:
                place, folder, below = levels[-1]
                if below:
                    name, before = below.pop()
                    inner = self._enter(at, place, folder, name)
                    if inner is not None:
                        inside = Place(place, name)
                        levels.append((inside, inner, self._fill(at, inside, inner, before)))
                else:
                    levels.pop()
                    if levels:
                        at.leave()
        self._now.doubt(mapped)
        if self._trusts:  # and what was mapped meanwhile
            self._now.doubt(mappings.mapped_inodes())
        return self._taken, self._now

    def _enter(self, at: Descent, place: Place, folder: Folder, name: str) -> Folder | None:
        """Go down into a folder, which is put into the one above; None if it is not there."""
        try:
            at.enter(name)
        except FileNotFoundError:
            return None
        except Elsewhere:
            folder.entries[name] = Other(0)
            self._taken.left_out.append(printable(place.path(name)))
            return None
        except OSError as exc:
            if exc.errno not in _REPLACED:
                raise
            raise _replaced(place, name) from exc
        self._taken.folders += 1
        inner = Folder(modes.S_IMODE(at.info.st_mode), at.info.st_mtime_ns)
        folder.entries[name] = inner
        return inner

    def _fill(
        self, at: Descent, place: Place, folder: Folder, before: Node | None
    ) -> list[tuple[str, Node | None]]:
        """Put all but folders into a folder; returns these, each with what it was before."""
        below: list[tuple[str, Node | None]] = []
        old = before.entries if isinstance(before, Folder) else {}
        for name in at.names():
            self._bounds.entry()
            for _ in range(ATTEMPTS):
                try:
                    info = at.stat(name)
                    if modes.S_ISDIR(info.st_mode):
                        below.append((name, old.get(name)))
                    else:
                        folder.entries[name] = self._node(at, place, name, info, old.get(name))
                    break
                except FileNotFoundError:
                    break
                except OSError as exc:
                    if exc.errno not in _REPLACED:
                        raise
            else:
                raise _replaced(place, name)
        return below

    def _node(
        self, at: Descent, place: Place, name: str, info: os.stat_result, before: Node | None
    ) -> Node:
        kind = modes.S_IFMT(info.st_mode)
        if kind == modes.S_IFLNK:
            target = os.readlink(name, dir_fd=at.here)
            self._taken.links += 1
            return Link(info.st_mtime_ns, target)
        if kind != modes.S_IFREG or info.st_dev != at.device:
            self._taken.left_out.append(printable(place.path(name)))
            return Other(kind if info.st_dev == at.device else 0)
        same = self._several.get(info.st_ino)
        if same is None:
            same, info = self._file(at, place, name, info, before)
            self._taken.bytes += same.content.data_bytes
            if info.st_nlink > 1:
                self._several[info.st_ino] = same
        self._taken.files += 1
        return same

    def _file(
        self, at: Descent, place: Place, name: str, info: os.stat_result, before: Node | None
    ) -> tuple[File, os.stat_result]:
        """A file, read only if it may have changed, and its stat."""
        known = self._before.files.get(info.st_ino)
        if known is not None and known.is_certain and known.stamp == stamp(info):
            self._now.files[info.st_ino] = Known(known.stamp, known.file, is_certain=True)
            return known.file, info
        like = known.file if known else before if isinstance(before, File) else None
        content, info, is_certain = self._read(at, place, name, like.content if like else None)
        if known and content.is_same(known.file.content):
            content = known.file.content
        file = File(modes.S_IMODE(info.st_mode), info.st_mtime_ns, content)
        self._now.files[info.st_ino] = Known(stamp(info), file, is_certain)
        return file, info

    def _read(
        self, at: Descent, place: Place, name: str, like: Content | None
    ) -> tuple[Content, os.stat_result, bool]:
        """A file's bytes, its stat, and whether whoever changes it would change the stat too."""
        attempt = 0
        with at.opened(name) as fd:
            while True:
                attempt += 1
                began_ns = time.time_ns()
                info = os.fstat(fd)
                content = contents.read(fd, info.st_size, like, self._copying)
                is_steady = stamp(os.fstat(fd)) == stamp(info)
                if is_steady or attempt == ATTEMPTS:
                    break
                like = content
        if not is_steady:
            self._taken.changing.append(printable(place.path(name)))
        is_old = max(info.st_mtime_ns, info.st_ctime_ns) < began_ns - TICK_NS
        return content, info, is_steady and is_old

    def _copying(self, size: int) -> None:
        self._bounds.room(size)
        self._taken.copied_bytes += size


def _replaced(place: Place, name: str) -> Conflict:
    where = printable(place.path(name))
    return Conflict(
        f"{where} was replaced by something else while it was looked at.",
        remedy="Nothing was changed. Stop what does that, and try again.",
    )
