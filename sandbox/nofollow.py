"""Walking a path one name at a time, without following a symbolic link anywhere.

Standard library only: the controller looks at the folders that it mounts with it, and the probe at
what was mounted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_O_PATH = getattr(os, "O_PATH", 0)
_FLAGS = _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Step:
    """What is at one part of a path: its name, and its stat."""

    name: str
    mode: int
    uid: int
    gid: int
    device: int
    inode: int

    @property
    def identity(self) -> tuple[int, int]:
        """What no other directory of this machine is at the same time."""
        return (self.device, self.inode)


def walk(path: str) -> list[Step]:
    """Each part of an absolute path, from ``/`` on, ending early at what is not a directory.

    Each name is opened in the directory that was opened before it, never by its path again, so
    nothing that is renamed meanwhile can lead elsewhere; a link is opened itself and is the last.

    Raises:
        OSError: A part does not exist or may not be looked into.
    """
    steps: list[Step] = []
    here = os.open("/", _FLAGS | os.O_DIRECTORY)
    try:
        steps.append(_step("/", here))
        for name in (part for part in path.split("/") if part):
            below = os.open(name, _FLAGS, dir_fd=here)
            os.close(here)
            here = below
            steps.append(_step(name, here))
            if steps[-1].mode & 0o170000 != 0o040000:
                break
    finally:
        os.close(here)
    return steps


def _step(name: str, fd: int) -> Step:
    found = os.fstat(fd)
    return Step(name, found.st_mode, found.st_uid, found.st_gid, found.st_dev, found.st_ino)
