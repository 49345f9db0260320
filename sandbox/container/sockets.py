"""Sockets and FIFOs in a folder: what leads out of a folder that is mounted read-only.

``ro`` is about files. connect(2) on the path of a socket, and open(2) of a FIFO, ask for the right
to write to its inode and for nothing of the mount, so whoever can see one in a folder speaks to
the host's program behind it. No filter of system calls can tell them either: the path is behind a
pointer. So they are looked for, and such a folder is not mounted. Devices need no look: nodev.

Standard library only. It blocks: call it in a thread.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

MAX_ENTRIES = 1_000_000
MAX_DEPTH = 64
"""Folders within each other; a descriptor each."""
MAX_S = 10.0
PAUSE_EVERY = 500
PAUSE_S = 0.001
"""Entries, and how long other threads have the interpreter for themselves after them."""

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Search:
    """What a search came to.

    Args:
        found: The first socket or FIFO, as ``the socket 'a/b'``; empty for none.
        unsearched: Why part of the folder was not looked at; empty when all of it was.
    """

    found: str = ""
    unsearched: str = ""


class _TooMuch(Exception):
    """A bound of the search is reached, or a folder cannot be looked into."""


def search(folder: str, *, identity: tuple[int, int] | None = None, strangers: range) -> Search:
    """Look for a socket or a FIFO in a folder and below, without following a link.

    What is mounted within the folder is not looked at: it is not mounted with it.

    Args:
        folder: Absolute.
        identity: The device and inode that it must be; None for any.
        strangers: Uids whose sockets and folders are passed over.

    Raises:
        OSError: The folder itself cannot be opened.
    """
    top = os.open(folder, _FLAGS)
    try:
        found = os.fstat(top)
        if identity not in (None, (found.st_dev, found.st_ino)):
            return Search(unsearched="another folder is there than was looked at")
        try:
            with closing(_Walk(top, strangers).sockets(top, "")) as sockets:
                return Search(found=next(sockets, ""))
        except _TooMuch as exc:
            return Search(unsearched=str(exc))
        except OSError as exc:
            return Search(unsearched=f"it cannot be read: {exc.strerror}")
    finally:
        os.close(top)


class _Walk:
    """One walk through a tree, within its bounds."""

    def __init__(self, top: int, strangers: range) -> None:
        self._device = os.fstat(top).st_dev
        self._mount = _mount_id(top)
        self._strangers = strangers
        self._until = time.monotonic() + MAX_S
        self._entries = 0

    def sockets(self, folder: int, path: str, depth: int = 1) -> Generator[str]:
        """Every socket and FIFO below a folder that is open, by its path."""
        below: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self._count()
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                    continue
                elif kind := self._kind(folder, entry.name):
                    yield f"the {kind} {path + entry.name!a}"
        for name in below:
            yield from self._into(folder, name, f"{path}{name}/", depth)

    def _into(self, folder: int, name: str, path: str, depth: int) -> Iterator[str]:
        try:
            inner = os.open(name, _FLAGS, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return  # it is gone, or is another thing now: the next look sees it
        except OSError as exc:
            if self._is_shut(folder, name):
                return
            raise _TooMuch(f"{path!a} cannot be looked into: {exc.strerror}") from exc
        try:
            found = os.fstat(inner)
            if found.st_uid in self._strangers:
                return
            if found.st_dev != self._device and _mount_id(inner) != self._mount:
                return
            if depth == MAX_DEPTH:
                raise _TooMuch(f"more than {MAX_DEPTH} folders are within each other")
            yield from self.sockets(inner, path, depth + 1)
        finally:
            os.close(inner)

    def _kind(self, folder: int, name: str) -> str:
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return ""
        if found.st_uid in self._strangers:
            return ""
        kinds = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "FIFO"}
        return kinds.get(stat.S_IFMT(found.st_mode), "")

    def _is_shut(self, folder: int, name: str) -> bool:
        """Whether a folder that we may not read may not be entered by a session either."""
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False
        return not found.st_mode & stat.S_IXOTH

    def _count(self) -> None:
        self._entries += 1
        if self._entries % PAUSE_EVERY == 0:
            time.sleep(PAUSE_S)
            if time.monotonic() > self._until:
                raise _TooMuch(f"it takes longer than {MAX_S:g} s")
        if self._entries > MAX_ENTRIES:
            raise _TooMuch(f"there are more than {MAX_ENTRIES:,} files")


def _mount_id(descriptor: int) -> str:
    """Which mount a descriptor is on; the kernel's word for it."""
    with open(f"/proc/self/fdinfo/{descriptor}") as lines:
        return next((line for line in lines if line.startswith("mnt_id:")), "")
