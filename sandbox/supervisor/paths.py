"""Paths in requests, and what the operating system says about them, in the link's words."""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from sandbox.errors import FileError

MAX_PATH_BYTES = 4096
_SURROGATES = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
_REASONS = {
    errno.ENOENT: "not_found",
    errno.EEXIST: "exists",
    errno.EISDIR: "is_directory",
    errno.ENOTDIR: "not_a_directory",
    errno.ENOTEMPTY: "not_empty",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EBUSY: "permission_denied",
    errno.EROFS: "read_only",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "too_large",
    errno.ENAMETOOLONG: "invalid_name",
    errno.EILSEQ: "invalid_name",
    errno.ELOOP: "invalid_name",
    errno.EINVAL: "invalid_name",
    errno.ENXIO: "not_a_file",
}
_TYPES = {
    modes.S_IFREG: "file",
    modes.S_IFDIR: "directory",
    modes.S_IFLNK: "symlink",
    modes.S_IFIFO: "fifo",
    modes.S_IFSOCK: "socket",
}


def resolve(workspace: str, request: Mapping[str, Any], field: str = "path") -> str:
    """The path a request names, absolute; where it leads is the kernel's business.

    Raises:
        FileError: ``invalid_name``: not text, empty, with NUL, or too long.
    """
    value = request.get(field)
    if not isinstance(value, str) or not value or "\0" in value:
        raise FileError("invalid_name", f"{field} must be a path: text, not empty, without NUL.")
    try:
        size = len(os.fsencode(value))
    except UnicodeEncodeError as exc:
        raise FileError("invalid_name", f"{field} holds characters no file name can.") from exc
    path = os.path.join(workspace, value)
    if size > MAX_PATH_BYTES or any(len(os.fsencode(n)) > 255 for n in path.split("/")):
        raise FileError("invalid_name", f"{field} is too long.")
    return path


def printable(path: str) -> str:
    """A path as it is told: bytes that are not UTF-8 are written ``\\xNN``."""
    return path.translate(_SURROGATES)


@contextmanager
def translated(path: str) -> Generator[None]:
    """Turn the operating system's refusals into ``FileError``."""
    try:
        yield
    except OSError as exc:
        reason = _REASONS.get(exc.errno or 0, "io_error")
        raise FileError(reason, f"{printable(path)}: {exc.strerror or exc}.") from exc


def etag(info: os.stat_result) -> str:
    """Changes whenever the file's content does."""
    return f"{info.st_mtime_ns:x}-{info.st_size:x}-{info.st_ino:x}"


def exists(path: str) -> bool:
    """Whether anything has that name, be it a link to nowhere."""
    return os.path.lexists(path)


def real(path: str) -> str:
    """The path with all links followed."""
    return os.path.realpath(path)


def describe(path: str, info: os.stat_result | None = None) -> dict[str, Any]:
    """The stat object of a path; a symlink is itself, not what it points at."""
    with translated(path):
        info = info or os.lstat(path)
        shown = os.path.normpath(path) if "/../" not in f"{path}/" else path
        entry: dict[str, Any] = {
            "path": printable(shown),
            "name": printable(os.path.basename(shown)),
            "type": _TYPES.get(modes.S_IFMT(info.st_mode), "device"),
            "size": info.st_size,
            "mode": modes.S_IMODE(info.st_mode),
            "mtime": info.st_mtime,
            "etag": etag(info),
        }
        if entry["type"] == "symlink":
            entry["target"] = printable(os.readlink(path))
    if entry["path"] != shown:
        entry["odd"] = True
    return entry


def open_regular(path: str, flags: int, mode: int = 0o644) -> int:
    """Open a regular file without ever waiting for one that is not.

    Raises:
        FileError: ``not_a_file`` for FIFOs, sockets and devices, ``is_directory``, or what the
            operating system says.
    """
    with translated(path):
        # Asked first, because opening a device can do something; asked again, because only what
        # was opened counts. O_NONBLOCK: opening a FIFO waits for its other end otherwise.
        _check_regular(path, os.stat(path).st_mode if os.path.exists(path) else modes.S_IFREG)
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, mode)
        try:
            _check_regular(path, os.fstat(fd).st_mode)
        except FileError:
            os.close(fd)
            raise
        return fd


def _check_regular(path: str, mode: int) -> None:
    if modes.S_ISDIR(mode):
        raise FileError("is_directory", f"{printable(path)} is a directory.")
    if not modes.S_ISREG(mode):
        kind = _TYPES.get(modes.S_IFMT(mode), "device")
        raise FileError("not_a_file", f"{printable(path)} is a {kind}, not a file.")
