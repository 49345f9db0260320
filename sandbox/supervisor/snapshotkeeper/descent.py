"""Going about in a tree of folders that others change meanwhile, without ever leaving it.

One name at a time is opened in the folder that was opened before, and no link is followed: what is
renamed or replaced on the way is an error, or not there, and never another place. One descriptor is
enough for any depth and any length of a path.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from sandbox.supervisor.snapshotkeeper.trees import Place

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ALL = 0o700
"""What we need of a folder's mode to go about in it."""


class Moved(OSError):
    """A folder in which we were is no longer where it was."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.ESTALE, "It was moved meanwhile", name)


class Elsewhere(OSError):
    """Another filesystem begins there."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.EXDEV, "It is another filesystem", name)


@dataclass(slots=True)
class _Step:
    place: Place | None
    name: str
    identity: tuple[int, int]
    mode: int | None
    """To be given back when the folder is left, since it had to be changed to look into it."""


class Descent:
    """Where we are in a tree: ``here`` is the descriptor of that folder.

    Args:
        root: A descriptor of the tree's root, which stays the caller's.
    """

    def __init__(self, root: int) -> None:
        info = os.fstat(root)
        self.device = info.st_dev
        self.here = os.dup(root)
        self.info = info
        """The stat of the folder that was entered last, as it was before it was entered."""
        self._identity = (info.st_dev, info.st_ino)
        self._stack: list[_Step] = []

    def __enter__(self) -> Descent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            while self._stack:
                self.leave()
        except OSError:
            if error is None:
                raise
        finally:
            os.close(self.here)

    @property
    def depth(self) -> int:
        """How many folders we are below the root."""
        return len(self._stack)

    def names(self) -> list[str]:
        """What is in this folder."""
        # A folder's descriptor has a position, which a copy of it would share.
        again = os.open(".", _FOLDER, dir_fd=self.here)
        try:
            with os.scandir(again) as entries:
                return [entry.name for entry in entries]
        finally:
            os.close(again)

    def stat(self, name: str) -> os.stat_result:
        """The stat of what has that name here; of a link itself."""
        return os.stat(name, dir_fd=self.here, follow_symlinks=False)

    def enter(self, name: str, place: Place | None = None) -> None:
        """Go down into a folder.

        Raises:
            Elsewhere: It is of another filesystem.
            OSError: There is none of that name, or it is something else.
        """
        try:
            below = os.open(name, _FOLDER, dir_fd=self.here)
        except PermissionError:
            with self.held(name, modes.S_IFDIR) as (path, info):
                os.chmod(path, modes.S_IMODE(info.st_mode) | _ALL)
                below = os.open(path, _FOLDER & ~os.O_NOFOLLOW)
        else:
            info = os.fstat(below)
        mode = modes.S_IMODE(info.st_mode)
        try:
            if info.st_dev != self.device:
                raise Elsewhere(name)
            if mode & _ALL != _ALL:
                os.fchmod(below, mode | _ALL)
        except BaseException:
            os.close(below)
            raise
        os.close(self.here)
        self.here, self.info = below, info
        back = mode if mode & _ALL != _ALL else None
        self._stack.append(_Step(place, name, (info.st_dev, info.st_ino), back))

    def leave(self) -> str:
        """Go up; returns the name of the folder that was left.

        Raises:
            Moved: The folder is no longer in the one that we came from.
        """
        step = self._stack.pop()
        above = os.open("..", _FOLDER, dir_fd=self.here)
        info = os.fstat(above)
        expected = self._stack[-1].identity if self._stack else self._identity
        try:
            if step.mode is not None:
                os.fchmod(self.here, step.mode)
            if (info.st_dev, info.st_ino) != expected:
                raise Moved(step.name)
        except BaseException:
            os.close(above)
            self._stack.clear()  # where we are now, nobody knows
            raise
        os.close(self.here)
        self.here = above
        return step.name

    def go(self, place: Place) -> None:
        """Go to a place: up as far as needed, then down."""
        way = place.way()
        common = 0
        while common < min(len(way), len(self._stack)) and self._stack[common].place is way[common]:
            common += 1
        while len(self._stack) > common:
            self.leave()
        for step in way[common:]:
            self.enter(step.name, step)

    @contextmanager
    def opened(self, name: str) -> Generator[int]:
        """A descriptor of a regular file here, to read it, whatever its mode says.

        Raises:
            OSError: It is not there, or no regular file, or of another filesystem.
        """
        try:
            fd = os.open(name, _FILE, dir_fd=self.here)
        except PermissionError:
            with self.held(name, modes.S_IFREG) as (path, info):
                mode = modes.S_IMODE(info.st_mode)
                os.chmod(path, mode | 0o400)
                try:
                    fd = os.open(path, _FILE & ~os.O_NOFOLLOW)
                finally:
                    os.chmod(path, mode)
        try:
            info = os.fstat(fd)
            if not modes.S_ISREG(info.st_mode) or info.st_dev != self.device:
                raise OSError(errno.ESTALE, "It is no longer a file", name)
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def held(self, name: str, kind: int = 0) -> Generator[tuple[str, os.stat_result]]:
        """A path that means exactly what has that name here now, whatever has it later.

        Args:
            kind: The type bits of its mode that it must have; 0 for any but a link's.
        """
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.here)
        try:
            info = os.fstat(fd)
            found = modes.S_IFMT(info.st_mode)
            if found == modes.S_IFLNK or (kind and found != kind):
                raise OSError(errno.ESTALE, "It is something else now", name)
            yield f"/proc/self/fd/{fd}", info
        finally:
            os.close(fd)

    def settle(self, name: str, kind: int, mode: int, mtime_ns: int) -> None:
        """Give a file or folder here its mode and time."""
        with self.held(name, kind) as (path, _):
            os.chmod(path, mode)
            os.utime(path, ns=(mtime_ns, mtime_ns))

    def remove(self, name: str) -> int:
        """Delete what has that name here, with all that is in it; returns how many that were."""
        if not modes.S_ISDIR(self.stat(name).st_mode):
            os.unlink(name, dir_fd=self.here)
            return 1
        removed = 0
        waiting = [[name]]  # of each level the folders that are still there
        while True:
            if waiting[-1]:
                self.enter(waiting[-1].pop())
                folders, unlinked = self._unlink_all()
                waiting.append(folders)
                removed += unlinked
                continue
            waiting.pop()
            if not waiting:
                return removed
            gone = self._stack[-1]
            gone.mode = None
            self.leave()
            os.rmdir(gone.name, dir_fd=self.here)
            removed += 1

    def _unlink_all(self) -> tuple[list[str], int]:
        """Delete all but folders; returns their names, and how many others there were."""
        folders: list[str] = []
        unlinked = 0
        for name in self.names():
            if modes.S_ISDIR(self.stat(name).st_mode):
                folders.append(name)
            else:
                os.unlink(name, dir_fd=self.here)
                unlinked += 1
        return folders, unlinked
