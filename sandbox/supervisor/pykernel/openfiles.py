"""The descriptors of a kernel: which a fork of it can have, and how they become its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, cast

from sandbox.supervisor.pykernel.blockers import Blocker

_HARMLESS = ("null", "zero", "full", "random", "urandom")
_GPU = ("/dev/nvidia", "/dev/kfd", "/dev/dri/")
_SHARED = ("/dev/shm/", "/memfd:")
_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is only read from, at a place in it that both sides would move."""

    fd: int
    flags: int
    offset: int
    identity: tuple[int, int]

    def make_own(self) -> None:
        """In a fork: open the same file again, at the place where it was read before the fork.

        Some libraries close their files in a fork: those stay closed.
        """
        if _identity(self.fd) != self.identity:
            return
        inheritable = os.get_inheritable(self.fd)
        again = os.open(f"/proc/self/fd/{self.fd}", self.flags | os.O_CLOEXEC)
        os.lseek(again, self.offset, os.SEEK_SET)
        os.dup2(again, self.fd, inheritable=inheritable)
        os.close(again)


def survey(own: Container[int], watched: Container[int]) -> tuple[list[OpenFile], list[Blocker]]:
    """The files that a fork opens again, and what it cannot have.

    Args:
        own: The kernel's own descriptors, which are seen to elsewhere.
        watched: Those that tasks of an event loop wait for.
    """
    files: list[OpenFile] = []
    blockers: list[Blocker] = []
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd in own:
            continue
        with contextlib.suppress(OSError):  # that of the list itself, which is closed by now
            found = _look(fd, is_watched=fd in watched)
            if isinstance(found, OpenFile):
                files.append(found)
            elif found is not None:
                blockers.append(found)
    return files, blockers


def _look(fd: int, *, is_watched: bool) -> OpenFile | Blocker | None:
    status = os.fstat(fd)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    target = os.readlink(f"/proc/self/fd/{fd}")
    if flags & os.O_PATH:
        return None
    if stat.S_ISSOCK(status.st_mode):
        return _socket(fd, is_watched=is_watched)
    if stat.S_ISFIFO(status.st_mode):
        name = f"the pipe {target}" if target.startswith("/") else "a pipe"
        return Blocker("pipe", f"{name} (descriptor {fd})", _close(fd))
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return _device(fd, target)
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return _file(fd, target, flags)
    kind = target.removeprefix("anon_inode:").strip("[]") or "descriptor"
    return Blocker("descriptor", f"an {kind} of the system (descriptor {fd})", _close(fd))


def _file(fd: int, path: str, flags: int) -> OpenFile | Blocker:
    if path.startswith(_SHARED):
        remedy = "close it, and unlink() it where nobody else uses it"
        return Blocker("shared memory", f"the shared memory {path}", remedy)
    if flags & os.O_ACCMODE != os.O_RDONLY:
        remedy = f"close it; it is descriptor {fd}"
        return Blocker("open file", f"the file {path}, which is open for writing", remedy)
    if _begins_with(fd, _SQLITE):
        return Blocker("database", f"the SQLite database {path}, which is open", "close() it")
    offset = os.lseek(fd, 0, os.SEEK_CUR)
    kept = os.O_RDONLY | os.O_NONBLOCK | os.O_DIRECT | os.O_NOATIME | os.O_DIRECTORY
    return OpenFile(fd, flags & kept, offset, _identity(fd))


def _identity(fd: int) -> tuple[int, int]:
    """Which file a descriptor leads to; none has that of a descriptor that is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return -1, -1
    return status.st_dev, status.st_ino


def _begins_with(fd: int, magic: bytes) -> bool:
    with contextlib.suppress(OSError):  # a folder has no bytes
        return os.pread(fd, len(magic), 0) == magic
    return False


def _device(fd: int, path: str) -> Blocker | None:
    if path.startswith(_GPU):
        remedy = "restart the kernel and branch before the GPU is first used"
        return Blocker("gpu", f"a GPU context ({path})", remedy)
    if path.removeprefix("/dev/") in _HARMLESS:
        return None
    kind = "terminal" if path.startswith("/dev/pts/") or path.startswith("/dev/pt") else "device"
    return Blocker(kind, f"the {kind} {path} (descriptor {fd})", _close(fd))


def _socket(fd: int, *, is_watched: bool) -> Blocker:
    with socket.socket(fileno=os.dup(fd)) as found:
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            what = f"a socket that listens on {_address(found.getsockname())}"
        else:
            try:
                what = f"a socket connected to {_address(found.getpeername())}"
            except OSError:
                what = "a socket that is not connected"
    held, remedy = f"{what} (descriptor {fd})", "close it"
    if is_watched:
        held, remedy = f"{held}, which an asyncio task waits for", "end the task and close it"
    return Blocker("socket", held, remedy)


def _address(found: Any) -> str:
    if isinstance(found, tuple):
        pair = cast("tuple[Any, ...]", found)
        return f"{pair[0]}:{pair[1]}"
    text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    return text.replace("\0", "@", 1) or "an unnamed Unix socket"


def _close(fd: int) -> str:
    return f"close what has it, or os.close({fd})"
