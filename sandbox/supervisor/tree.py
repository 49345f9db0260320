"""Whole directory trees: listing them within bounds, and deleting them however deep they are.

Both walk in steps and let the event loop run in between: a tree can have as many entries as its
filesystem has inodes.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import re
import stat as modes
from dataclasses import dataclass, field

from sandbox.errors import FileError
from sandbox.supervisor.paths import printable, translated

MAX_DEPTH = 32
MAX_SCANNED = 50_000
STEP = 200


class Pattern:
    """A shell pattern: of names, or, when it has a ``/``, of paths, where ``**`` is any depth."""

    def __init__(self, pattern: str) -> None:
        parts = pattern.strip("/").split("/")
        self._by_path = "/" in pattern
        self._parts = [
            None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts
        ]

    def matches(self, relative: str) -> bool:
        """Whether a path, relative to where the listing began, is meant."""
        names = relative.split("/")
        if not self._by_path:
            names = names[-1:]
        # Which parts of the pattern can be reached after each name: linear, no backtracking.
        reached = self._skip({0})
        for name in names:
            reached = self._skip(
                {
                    at if part is None else at + 1
                    for at in reached
                    if at < len(self._parts)
                    and ((part := self._parts[at]) is None or part.match(name))
                }
            )
        return len(self._parts) in reached

    def _skip(self, reached: set[int]) -> set[int]:
        """``**`` also stands for no directory at all."""
        more = set(reached)
        for at in sorted(reached):
            while at < len(self._parts) and self._parts[at] is None:
                at += 1
                more.add(at)
        return more


async def scan(root: str, max_depth: int, pattern: str) -> tuple[list[str], bool]:
    """The paths below a directory, relative to it and sorted; symlinks are not followed.

    Args:
        max_depth: 1 for its own entries only, at most ``MAX_DEPTH``.

    Returns:
        The paths that match, and whether more than ``MAX_SCANNED`` entries were there.

    Raises:
        FileError: The directory itself cannot be read.
    """
    wanted = Pattern(pattern) if pattern else None
    found: list[str] = []
    scanned = 0
    level = [""]
    with translated(root):
        os.scandir(root).close()
    for _ in range(min(max_depth, MAX_DEPTH)):
        below: list[str] = []
        for folder in level:
            try:
                entries = os.scandir(os.path.join(root, folder))
            except OSError:
                continue  # one that cannot be read, or has gone, is listed without its contents
            with entries:
                for entry in entries:
                    scanned += 1
                    if scanned > MAX_SCANNED:
                        return sorted(found), True
                    if scanned % STEP == 0:
                        await asyncio.sleep(0)
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if wanted is None or wanted.matches(path):
                        found.append(path)
                    if entry.is_dir(follow_symlinks=False):
                        below.append(path)
        level = below
    return sorted(found), False


@dataclass(slots=True)
class _Folder:
    """A directory on the way down: its name in its parent, who it is, what is left in it."""

    name: str
    identity: tuple[int, int]
    pending: list[str] = field(default_factory=list[str])


async def delete(path: str) -> int:
    """Delete a directory with all that is in it, and return how many entries that were.

    Goes down and up one name at a time with a single descriptor, so neither the depth nor the
    length of the paths matters.

    Raises:
        FileError: Something cannot be deleted; what was deleted before stays so.
    """
    head, name = os.path.split(path.rstrip("/"))
    with translated(path):
        here = os.open(head or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        deleted = 0
        stack: list[_Folder] = []
        try:
            here = _enter(here, name, stack)
            deleted += await _empty(here, stack[-1])
            while stack:
                folder = stack[-1]
                if folder.pending:
                    here = _enter(here, folder.pending.pop(), stack)
                    deleted += await _empty(here, stack[-1])
                else:
                    here = _leave(here, stack)
                    deleted += 1
                if deleted % STEP == 0:
                    await asyncio.sleep(0)
        finally:
            os.close(here)
        return deleted


def _enter(here: int, name: str, stack: list[_Folder]) -> int:
    """Go down; the directory above is closed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        below = os.open(name, flags, dir_fd=here)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=here)
        below = os.open(name, flags, dir_fd=here)
    info = os.fstat(below)
    if modes.S_IMODE(info.st_mode) & 0o700 != 0o700:
        os.fchmod(below, 0o700)
    os.close(here)
    stack.append(_Folder(name, (info.st_dev, info.st_ino)))
    return below


async def _empty(here: int, folder: _Folder) -> int:
    """Delete everything but directories; those are left for later, or go at once when empty."""
    deleted = 0
    with os.scandir(here) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for index, (name, is_directory) in enumerate(names):
        if is_directory:
            folder.pending.append(name)
        else:
            os.unlink(name, dir_fd=here)
            deleted += 1
        if index % STEP == STEP - 1:
            await asyncio.sleep(0)
    return deleted


def _leave(here: int, stack: list[_Folder]) -> int:
    """Go up and delete the directory that was left."""
    folder = stack.pop()
    above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    if stack:
        info = os.fstat(above)
        if (info.st_dev, info.st_ino) != stack[-1].identity:
            os.close(above)
            raise FileError(
                "io_error", f"{printable(folder.name)} was moved while it was being deleted."
            )
    os.close(here)
    try:
        os.rmdir(folder.name, dir_fd=above)
    except OSError:
        os.close(above)
        raise
    return above
