"""Files into a session and out of it, with their progress and a word on what was written."""

from __future__ import annotations

import fnmatch
import posixpath
import sys
import time
from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.cli.hostfiles import HostFolder, Outgoing, pieces_of
from sandbox.cli.sessionaccess import Access, FolderListing
from sandbox.errorgroups import one_error
from sandbox.errors import FileError, InvalidRequest, QuotaExceeded, SandboxError
from sandbox.files.models import FileStat
from sandbox.outputs.plain import escaped

if TYPE_CHECKING:
    from rich.progress import Progress

QUIET_S = 1.0
"""A copy that takes no longer shows no progress."""
AT_ONCE = 8
"""Files that go in at the same time."""
ALL_LEVELS = 32
BLOCK_BYTES = 4096
"""What a file takes of a workspace is a multiple of it."""


class CopyMeter:
    """Shows on a terminal how far a copy is, once it takes long."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._bar: Progress | None = None

    async def over(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same pieces, counted."""
        async for piece in pieces:
            self._done += len(piece)
            self._show()
            yield piece

    def _show(self) -> None:
        if self._bar is None:
            if time.monotonic() - self._began < QUIET_S or not sys.stderr.isatty():
                return
            self._bar = _bar()
            self._bar.start()
            self._bar.add_task(self._what, total=self._total)
        self._bar.update(self._bar.task_ids[0], completed=self._done)

    def close(self) -> None:
        """Take it off the screen."""
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)


@contextmanager
def metered(what: str, total: int) -> Generator[CopyMeter]:
    """A meter for the time of a copy."""
    meter = CopyMeter(what, total)
    try:
        yield meter
    finally:
        meter.close()


async def copy_in(access: Access, outgoing: Outgoing, folder: str = "") -> None:
    """Copy files of this machine into a folder of a session.

    Raises:
        QuotaExceeded: They are more than its workspace holds; nothing was copied.
        SandboxError: They could not all be copied.
    """
    for line in outgoing.left_out:
        print(f"[left out {shown(line)}]", file=sys.stderr)
    check_room(outgoing, await access.list(""))
    with metered("copying in", outgoing.size) as meter:
        for name in outgoing.folders:
            await access.mkdir(posixpath.join(folder, name))
        left = iter(outgoing.files)

        async def copy_some() -> None:
            for file in left:
                mode = 0o755 if file.is_program else None
                pieces = meter.over(pieces_of(file))
                await access.write(posixpath.join(folder, file.name), pieces, mode)

        async with one_error() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(copy_some)


def check_room(outgoing: Outgoing, listing: FolderListing) -> None:
    """Refuse what cannot fit, before anything is copied.

    Raises:
        QuotaExceeded: It cannot.
    """
    blocks = sum(-(-each.size // BLOCK_BYTES) * BLOCK_BYTES for each in outgoing.files)
    if blocks > listing.workspace_bytes:
        raise QuotaExceeded(
            f"{outgoing.size:,} bytes are to be copied, and the session's workspace holds "
            f"{listing.workspace_bytes:,}. Nothing was copied.",
            remedy="Copy less, or take a policy with a larger workspace (`sandbox policy list`).",
        )
    count = len(outgoing.files) + len(outgoing.folders)
    if count > listing.workspace_inodes:
        raise QuotaExceeded(
            f"{count:,} files are to be copied, and the session's workspace holds "
            f"{listing.workspace_inodes:,}. Nothing was copied.",
            remedy="Copy fewer, or pack them into an archive.",
        )


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file or folder of a session that is wanted here."""

    path: str
    """There."""
    name: str
    """Here, relative to the target folder; nobody vouches for it."""
    size: int
    is_folder: bool = False


async def matching(access: Access, pattern: str) -> tuple[list[WantedFile], int]:
    """The files of the workspace that a glob matches, with what is in folders that it does, and
    what the workspace may hold in bytes.

    ``*`` and ``?`` match no dot at the beginning of a name, so that hidden files come only when
    they are named.

    Raises:
        InvalidRequest: The glob is no path below the workspace, or stands for too many files.
    """
    given = "" if pattern == "/workspace" else pattern.removeprefix("/workspace/")
    wanted = posixpath.normpath(given or ".")
    if wanted.startswith("/") or wanted.split("/")[0] == "..":
        raise InvalidRequest(
            f"{pattern!r:.200} is no path below the workspace.",
            remedy="Give one relative to it, such as 'out/*.png'.",
        )
    wanted = "*" if wanted == "." else wanted
    root, rest = _literal(wanted)
    levels = ALL_LEVELS if "**" in rest else len(rest)
    try:
        listing = await access.list(root, levels, "/".join(rest))
    except FileError:
        return [], 0
    found: dict[str, WantedFile] = {}
    for entry in _usable(listing.entries):
        name = posixpath.join(root, _relative(entry.path, root))
        parts, pattern_parts = name.split("/"), wanted.split("/")
        # Asked again here: what chose among the files is in the session.
        if not _is_meant(parts, pattern_parts) or not _is_named(parts, pattern_parts):
            continue
        found[name] = WantedFile(name, name, entry.size, entry.type == "directory")
    for folder in [each for each in found.values() if each.is_folder]:
        for below in await below_folder(access, folder.path, folder.name):
            if not any(part.startswith(".") for part in below.name[len(folder.name) :].split("/")):
                found.setdefault(below.name, below)
    if not listing.is_whole:
        raise InvalidRequest(f"{pattern!r:.200} stands for too many files.")
    return sorted(found.values(), key=lambda each: each.name), listing.workspace_bytes


def _literal(pattern: str) -> tuple[str, list[str]]:
    """The folders at the beginning of a glob that are no patterns, and the rest, at least one."""
    parts = pattern.split("/")
    count = 0
    while count < len(parts) - 1 and not any(c in parts[count] for c in "*?["):
        count += 1
    return "/".join(parts[:count]), parts[count:]


def _is_meant(name: list[str], pattern: list[str]) -> bool:
    """Whether a glob, in which ``**`` is any depth, stands for a name."""
    # Of each beginning of the glob, whether it stands for the parts of the name so far.
    reached = _past_depths([True, *(False for _ in pattern)], pattern)
    for part in name:
        stays = [is_here and each == "**" for is_here, each in zip(reached, pattern, strict=False)]
        moves = [
            is_here and each != "**" and fnmatch.fnmatchcase(part, each)
            for is_here, each in zip(reached, pattern, strict=False)
        ]
        both = zip([*stays, False], [False, *moves], strict=True)
        reached = _past_depths([is_kept or is_next for is_kept, is_next in both], pattern)
    return reached[-1]


def _past_depths(reached: list[bool], pattern: list[str]) -> list[bool]:
    """``**`` also stands for no folder at all."""
    for at, each in enumerate(pattern):
        if each == "**" and reached[at]:
            reached[at + 1] = True
    return reached


def _is_named(name: list[str], pattern: list[str]) -> bool:
    """Whether each hidden part of a name is hidden in the glob too."""
    hidden = [part for part in name if part.startswith(".")]
    dotted = [part for part in pattern if part.startswith(".")]
    return all(any(fnmatch.fnmatchcase(part, each) for each in dotted) for part in hidden)


async def below_folder(access: Access, path: str, name: str) -> list[WantedFile]:
    """All that is in a folder of a session, to be put under a name.

    Raises:
        InvalidRequest: It is too much.
    """
    listing = await access.list(path, ALL_LEVELS)
    if not listing.is_whole:
        raise InvalidRequest(f"There are too many files in {shown(path)} to copy.")
    return [
        WantedFile(
            posixpath.join(path, relative),
            posixpath.join(name, relative),
            entry.size,
            entry.type == "directory",
        )
        for entry in _usable(listing.entries)
        for relative in (_relative(entry.path, path),)
    ]


def _usable(entries: Iterable[FileStat]) -> Generator[FileStat]:
    for entry in entries:
        if entry.odd or entry.type not in ("file", "directory"):
            kind = "its name is not UTF-8" if entry.odd else f"a {entry.type}"
            print(f"[left out {shown(entry.path)}: {kind}]", file=sys.stderr)
        else:
            yield entry


def _relative(path: str, root: str) -> str:
    """A path of a listing relative to the folder that was listed; both may be absolute or not."""
    for prefix in (root, posixpath.join("/workspace", root)):
        if prefix and path.startswith(prefix.rstrip("/") + "/"):
            return path[len(prefix.rstrip("/")) + 1 :]
    return path


async def copy_out(
    access: Access, wanted: list[WantedFile], folder: HostFolder, *, most: int, told: str = ""
) -> list[str]:
    """Write files of a session here, and say what was written; what is refused is returned.

    Args:
        most: Bytes in all; more is an error.
        told: What stands before each name in what is said.
    """
    refused: list[str] = []
    with metered("copying out", sum(each.size for each in wanted)) as meter:
        for each in wanted:
            try:
                if each.is_folder:
                    folder.mkdir(each.name)
                    continue
                if folder.is_taken(each.name):
                    refused.append(f"{shown(told + each.name)} is there already; --force replaces")
                    continue
                async with access.read(each.path) as (_, pieces):
                    size = await folder.write(each.name, meter.over(pieces), most=most)
            except SandboxError as exc:
                refused.append(f"{shown(told + each.name)}: {shown(exc.message)}")
                continue
            most -= size
            print(f"[wrote {shown(told + each.name)}, {size:,} bytes]", file=sys.stderr)
    return refused


def shown(text: str) -> str:
    """A name or message from a session, with nothing in it that a terminal would obey."""
    return escaped(text[:1000])
