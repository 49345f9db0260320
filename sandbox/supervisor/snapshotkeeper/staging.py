"""The folder in which a restore makes everything new before it changes anything.

It is in the workspace itself, since only within one filesystem a thing is put in its place by its
name alone; and what makes way is kept in it until all is done.
"""

from __future__ import annotations

import os
import stat as modes

from sandbox.errors import FileError
from sandbox.supervisor.snapshotkeeper import contents
from sandbox.supervisor.snapshotkeeper.bounds import Bounds, mib
from sandbox.supervisor.snapshotkeeper.descent import Descent
from sandbox.supervisor.snapshotkeeper.planning import Plan
from sandbox.supervisor.snapshotkeeper.trees import File, Folder, Link, Node, nodes

PREFIX = ".sandbox-restore-"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Staging:
    """A new folder at the workspace's root.

    Args:
        root: A descriptor of the workspace.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, root: int, bounds: Bounds) -> None:
        self._root = root
        self._bounds = bounds
        self.name = f"{PREFIX}{os.urandom(8).hex()}"
        os.mkdir(self.name, 0o700, dir_fd=root)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self.name, flags, dir_fd=root)
        self._number = 0
        self._several: dict[File, str] = {}
        self.written = 0
        """How many files and links were made."""
        self.written_bytes = 0

    @property
    def own(self) -> int:
        """How many things in it were never the workspace's, itself counted."""
        return 1 + len(self._several)

    def new_name(self) -> str:
        """A name in the folder that nothing has."""
        self._number += 1
        return str(self._number)

    def make(self, node: File | Link | Folder, linked: set[File]) -> str:
        """Make a thing with all that is in it; returns its name here.

        A folder itself gets its mode only where it is put, for one without a right to write cannot
        be put anywhere.

        Args:
            linked: The files that have several names.
        """
        name = self.new_name()
        with Descent(self.fd) as at:
            if not isinstance(node, Folder):
                self._make(at, name, node, linked)
                return name
            os.mkdir(name, 0o700, dir_fd=at.here)
            at.enter(name)
            levels = [(node, self._fill(at, node, linked))]
            while True:
                folder, below = levels[-1]
                if below:
                    inner, node = below.pop()
                    at.enter(inner)
                    levels.append((node, self._fill(at, node, linked)))
                    continue
                levels.pop()
                made = at.leave()
                if not levels:
                    return name
                at.settle(made, modes.S_IFDIR, folder.mode, folder.mtime_ns)

    def _fill(self, at: Descent, folder: Folder, linked: set[File]) -> list[tuple[str, Folder]]:
        below: list[tuple[str, Folder]] = []
        for name, node in folder.entries.items():
            if isinstance(node, Folder):
                os.mkdir(name, 0o700, dir_fd=at.here)
                below.append((name, node))
            elif isinstance(node, File | Link):
                self._make(at, name, node, linked)
        return below

    def _make(self, at: Descent, name: str, node: File | Link, linked: set[File]) -> None:
        self._bounds.time()
        self.written += 1
        if isinstance(node, Link):
            os.symlink(node.target, name, dir_fd=at.here)
            times = (node.mtime_ns, node.mtime_ns)
            os.utime(name, ns=times, dir_fd=at.here, follow_symlinks=False)
        elif node not in linked:
            self._write(at.here, name, node)
        else:
            if node not in self._several:
                self._several[node] = self.new_name()
                self._write(self.fd, self._several[node], node)
            first = self._several[node]
            os.link(first, name, src_dir_fd=self.fd, dst_dir_fd=at.here, follow_symlinks=False)

    def _write(self, folder: int, name: str, file: File) -> None:
        fd = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            contents.write(fd, file.content)
            os.fchmod(fd, file.mode)
            os.utime(fd, ns=(file.mtime_ns, file.mtime_ns))
        finally:
            os.close(fd)
        self.written_bytes += file.content.data_bytes

    def remove(self) -> int:
        """Delete the folder with all that is in it; returns how many things those were."""
        with Descent(self._root) as at:
            return at.remove(self.name)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self.fd)


def check_room(root: int, plan: Plan) -> None:
    """Look whether what is to be made has room beside what is there.

    Raises:
        FileError: ``no_space``, with figures.
    """
    needed_bytes, needed_files = _needs(plan)
    room = os.fstatvfs(root)
    free_bytes, free_files = room.f_bavail * room.f_frsize, room.f_favail
    if needed_bytes > free_bytes or (room.f_files and needed_files > free_files):
        raise no_space(root, plan)


def no_space(root: int, plan: Plan) -> FileError:
    """What a restore that has no room is refused with."""
    needed_bytes, needed_files = _needs(plan)
    room = os.fstatvfs(root)
    files = f" and {room.f_favail} files" if room.f_files else ""
    return FileError(
        "no_space",
        "The workspace has no room to put the snapshot back. Beside what is there that takes "
        f"{mib(needed_bytes)} and {needed_files} files, and {mib(room.f_bavail * room.f_frsize)}"
        f"{files} are free. Nothing was changed.",
        remedy="Delete what is not needed, and try again.",
    )


def _needs(plan: Plan) -> tuple[int, int]:
    """The bytes and inodes of all that is to be made."""
    size, count = 0, 1
    seen: set[File] = set()

    def add(node: Node) -> None:
        nonlocal size, count
        count += 1
        if isinstance(node, File) and node not in seen:
            seen.add(node)
            size += sum(-(-len(piece) // 4096) * 4096 for _, piece in node.content.pieces)

    for work in plan.works:
        for _, node in work.put:
            add(node)
            if isinstance(node, Folder):
                for below in nodes(node):
                    add(below)
    return size, count
