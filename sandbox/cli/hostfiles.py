"""Files of this machine that go into a session, and those that come out of one.

What goes in is looked at without following a symbolic link, other than one that a person named.
What comes out has names that nobody vouches for: each is walked from the target folder on, one
part at a time, and neither follows a link nor takes the place of what is there already.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import anyio.to_thread

from sandbox.cli.outlets import write_all
from sandbox.errors import InvalidRequest

PIECE_BYTES = 256 * 1024
MAX_FILES = 100_000
MAX_NAME_BYTES = 4096
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file of this machine that goes into a session."""

    path: Path
    name: str
    """There, relative to where all of them go."""
    size: int
    is_program: bool
    """Whether its owner may execute it."""


@dataclass(slots=True)
class Outgoing:
    """What goes into a session."""

    files: list[HostFile] = field(default_factory=list[HostFile])
    folders: list[str] = field(default_factory=list[str])
    """Those that are empty; others come with their files."""
    left_out: list[str] = field(default_factory=list[str])
    """Of each thing that does not go, what it is and why."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(each.size for each in self.files)

    def has(self, path: Path, name: str) -> bool:
        """Whether a file of this machine goes already under that name."""
        wanted = os.path.realpath(path)
        return any(
            each.name == name and os.path.realpath(each.path) == wanted for each in self.files
        )

    def add(self, path: Path, name: str) -> None:
        """Add a file, or a folder with all that is in it, under a name.

        Raises:
            InvalidRequest: It cannot be read, is neither, or there are two of one name.
        """
        with _readable(path):
            found = path.stat()  # a link that a person names is meant
        if stat.S_ISDIR(found.st_mode):
            self._add_folder(path, name)
        elif stat.S_ISREG(found.st_mode):
            self._add_file(Path(os.path.realpath(path)), name, found)
        else:
            raise InvalidRequest(f"{path} is neither a file nor a folder, so it cannot be copied.")
        names = [each.name for each in self.files]
        if len(names) != len(set(names)):
            twice = next(each for each in names if names.count(each) > 1)
            raise InvalidRequest(f"Two files would be {twice!r} in the session.")

    def _add_folder(self, path: Path, name: str) -> None:
        with _readable(path):
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        if not entries and name:
            self.folders.append(name)
        for entry in entries:
            below = f"{name}/{entry.name}" if name else entry.name
            with _readable(Path(entry.path)):
                found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                self._add_folder(Path(entry.path), below)
            elif stat.S_ISREG(found.st_mode):
                self._add_file(Path(entry.path), below, found)
            else:
                kind = "a symbolic link" if entry.is_symlink() else "no file"
                self.left_out.append(f"{entry.path}: {kind}")

    def _add_file(self, path: Path, name: str, found: os.stat_result) -> None:
        if len(self.files) >= MAX_FILES:
            raise InvalidRequest(f"More than {MAX_FILES:,} files are too many to copy.")
        try:
            name.encode()
        except UnicodeEncodeError as exc:
            raise InvalidRequest(f"The name of {str(path)!a} is not UTF-8.") from exc
        is_program = bool(found.st_mode & stat.S_IXUSR)
        self.files.append(HostFile(path, name, found.st_size, is_program))


def name_inside(path: Path) -> str:
    """The name that a path given on the command line has in the workspace: the same, as long as it
    is below the current folder, else its last part; empty for the current folder itself."""
    parts = PurePosixPath(os.path.normpath(path)).parts
    if path.is_absolute() or ".." in parts:
        here, there = Path.cwd(), Path(os.path.abspath(path))
        parts = there.relative_to(here).parts if there.is_relative_to(here) else (there.name,)
    return "/".join(part for part in parts if part != ".")


async def pieces_of(file: HostFile) -> AsyncIterator[bytes]:
    """The bytes of a file, as many as it had when it was looked at.

    Raises:
        InvalidRequest: It cannot be read, or has become something else.
    """
    with _readable(file.path):
        fd = os.open(file.path, _READ)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidRequest(f"{file.path} is no file any more.")
        left = file.size
        while left > 0:
            with _readable(file.path):
                data = await anyio.to_thread.run_sync(os.read, fd, min(PIECE_BYTES, left))
            if not data:
                return
            left -= len(data)
            yield data
    finally:
        os.close(fd)


def safe_parts(name: str) -> tuple[str, ...]:
    """The parts of a relative name from a session, which lead nowhere but down.

    Raises:
        InvalidRequest: It leads elsewhere, or cannot be a name here.
    """
    parts = tuple(name.split("/"))
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = MAX_NAME_BYTES + 1
    if size > MAX_NAME_BYTES or not all(_is_name(part) for part in parts):
        raise InvalidRequest(f"{name[:200]!a} cannot be the name of a file here.")
    return parts


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and part.isprintable() and "\\" not in part


class HostFolder:
    """The folder that files of a session are written to; a context manager.

    Args:
        force: Whether what is there already may be replaced.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        self._path = path
        self._force = force

    def __enter__(self) -> HostFolder:
        with _writable(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)

    def is_taken(self, name: str) -> bool:
        """Whether there is something of that name, or of what leads to it, that may not give way.

        Raises:
            InvalidRequest: It cannot be a name.
        """
        *folders, last = safe_parts(name)
        with _writable(self._path / name), self._inside(folders, make=False) as fd:
            if fd is None:
                return False
            try:
                found = os.stat(last, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                return False
            return not self._force or stat.S_ISDIR(found.st_mode)

    async def write(self, name: str, pieces: AsyncIterator[bytes], *, most: int) -> int:
        """Write a file of so many bytes at most, whole or not at all; returns its size.

        Raises:
            InvalidRequest: It cannot be written, or is longer.
        """
        *folders, last = safe_parts(name)
        shown = self._path / name
        with _writable(shown), self._inside(folders, make=True) as fd:
            assert fd is not None  # noqa: S101  # it was made
            draft = f".{secrets.token_hex(8)}.part"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            out = os.open(draft, flags, 0o666, dir_fd=fd)
            size = 0
            try:
                try:
                    async for piece in pieces:
                        size += len(piece)
                        if size > most:
                            raise InvalidRequest(
                                f"{shown} would be longer than all that the session may hold."
                            )
                        await anyio.to_thread.run_sync(write_all, out, piece)
                finally:
                    os.close(out)
                if self._force:
                    os.replace(draft, last, src_dir_fd=fd, dst_dir_fd=fd)
                else:
                    os.link(draft, last, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=fd)
        return size

    def mkdir(self, name: str) -> None:
        """Make a folder, with those above it."""
        with _writable(self._path / name), self._inside(safe_parts(name), make=True):
            pass

    @contextmanager
    def _inside(self, folders: Iterable[str], *, make: bool) -> Generator[int | None]:
        """The descriptor of a folder below this one; None when it is not there, nor made."""
        here = os.dup(self._fd)
        try:
            for part in folders:
                try:
                    below = os.open(part, _FOLDER, dir_fd=here)
                except FileNotFoundError:
                    if not make:
                        yield None
                        return
                    os.mkdir(part, dir_fd=here)
                    below = os.open(part, _FOLDER, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)


@contextmanager
def _readable(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be read: {exc.strerror}.") from exc


@contextmanager
def _writable(path: Path) -> Generator[None]:
    try:
        yield
    except FileExistsError as exc:
        raise InvalidRequest(
            f"{path} is there already.", remedy="Move it away, or replace it with --force."
        ) from exc
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be written: {exc.strerror}.") from exc
