"""`sandbox cp`: files and folders into a session and out of it."""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from sandbox.cli import exits, logs
from sandbox.cli.hostfiles import HostFolder, Outgoing
from sandbox.cli.outlets import Sink
from sandbox.cli.sessionaccess import Access
from sandbox.cli.signals import ended_by_signals
from sandbox.cli.targets import ControllerTarget, existing_session
from sandbox.cli.transfers import WantedFile, below_folder, copy_in, copy_out, shown
from sandbox.config import Settings
from sandbox.errors import FileError, InvalidRequest

STREAM = "-"
PIECE_BYTES = 256 * 1024
_REMOTE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CopyPlace:
    """A place of the command line: in a session, or here."""

    session: str
    """Empty for one here."""
    path: str

    @classmethod
    def of(cls, word: str) -> CopyPlace:
        """``SESSION:PATH``, or a path here, which is also what has a ``/`` before its ``:``."""
        found = _REMOTE.fullmatch(word)
        return cls(found[1], found[2]) if found else cls("", word)


@dataclass(frozen=True, slots=True)
class Copying:
    """What is to be copied; either the sources are in one session, or the target is in one."""

    sources: tuple[CopyPlace, ...]
    target: CopyPlace
    force: bool

    @classmethod
    def of(cls, words: Sequence[str], *, force: bool) -> Copying:
        """The copying of a command line.

        Raises:
            InvalidRequest: It is none between here and one session.
        """
        *sources, target = map(CopyPlace.of, words)
        sessions = {each.session for each in sources}
        if len(sessions) != 1 or ("" in sessions) != bool(target.session):
            raise InvalidRequest(
                "Either the sources or the target must be in one session, the other here.",
                remedy="Name what is in a session SESSION:PATH; one here with `:` is ./NAME.",
            )
        if any(each.path == STREAM and not each.session for each in sources) and len(sources) > 1:
            raise InvalidRequest("Standard input `-` is copied alone.")
        return cls(tuple(sources), target, force)

    @property
    def session(self) -> str:
        """The session as it was named."""
        return self.target.session or self.sources[0].session


def run_copy(settings: Settings, target: ControllerTarget, copying: Copying) -> int:
    """Copy, say what was written, and return the exit code.

    Raises:
        SandboxError: It could not be copied.
    """
    logs.configure(settings.log_level)
    return anyio.run(_run, settings, target, copying)


async def _run(settings: Settings, target: ControllerTarget, copying: Copying) -> int:
    async with (
        ended_by_signals() as ending,
        existing_session(settings, target, copying.session) as access,
    ):
        if copying.target.session:
            return await _into(access, copying)
        return await _out_of(access, copying)
    return ending.exit_code


async def _into(access: Access, copying: Copying) -> int:
    there = copying.target.path
    if copying.sources[0].path == STREAM:
        if not there or there.endswith("/"):
            raise InvalidRequest("Name the file in the session that standard input is copied to.")
        await access.write(there, _standard_input(), None)
        return exits.OK
    is_folder = not there or there.endswith("/") or await _is_folder(access, there)
    if not is_folder and len(copying.sources) > 1:
        raise InvalidRequest(f"{there!r} is no folder, so it cannot take several files.")
    outgoing, into = _outgoing(copying.sources, there, is_folder=is_folder)
    await copy_in(access, outgoing, into)
    for file in outgoing.files:
        where = posixpath.join(into, file.name)
        print(f"[wrote {access.session_id}:{shown(where)}, {file.size:,} bytes]", file=sys.stderr)
    return exits.OK


def _outgoing(sources: Sequence[CopyPlace], there: str, *, is_folder: bool) -> tuple[Outgoing, str]:
    """What is copied, and the folder there that it goes into.

    Args:
        is_folder: Whether the target is one already, so that sources keep their names in it.
    """
    outgoing, into = Outgoing(), there
    for source in sources:
        path = Path(source.path)
        if is_folder:
            outgoing.add(path, path.resolve().name)
        elif path.is_dir():
            outgoing.add(path, "")
        else:
            outgoing.add(path, there)
            into = ""
    return outgoing, into


async def _out_of(access: Access, copying: Copying) -> int:
    if copying.target.path == STREAM:
        sink = Sink(1)
        try:
            for source in copying.sources:
                async with access.read(source.path) as (_, pieces):
                    async for piece in pieces:
                        await sink.write(piece)
        finally:
            await sink.close()
        return exits.OK
    target = Path(copying.target.path)
    is_folder = copying.target.path.endswith("/") or await anyio.Path(target).is_dir()
    if len(copying.sources) > 1 and not is_folder:
        raise InvalidRequest(f"{target} is no folder, so it cannot take several files.")
    refused: list[str] = []
    for source in copying.sources:
        name = posixpath.basename(posixpath.normpath(source.path or "workspace"))
        folder, name = (target, name) if is_folder else (target.parent, target.name)
        if not name or name in (".", ".."):
            raise InvalidRequest(f"{source.path!r} has no name; give the target one.")
        most = (await access.list("")).workspace_bytes
        wanted = await _wanted(access, source.path, name)
        told = "" if folder == Path() else f"{folder}/"
        with HostFolder(folder, force=copying.force) as open_folder:
            refused += await copy_out(access, wanted, open_folder, most=most, told=told)
    for problem in refused:
        print(f"sandbox: {problem}", file=sys.stderr)
    return exits.FAILED if refused else exits.OK


async def _wanted(access: Access, path: str, name: str) -> list[WantedFile]:
    """The file at a path, or the folder with all that is in it, under a name here."""
    if not await _is_folder(access, path):
        return [WantedFile(path, name, 0)]
    return [WantedFile(path, name, 0, is_folder=True), *await below_folder(access, path, name)]


async def _is_folder(access: Access, path: str) -> bool:
    try:
        await access.list(path)
    except FileError as exc:
        if exc.reason in ("not_a_directory", "not_found"):
            return False
        raise
    return True


async def _standard_input() -> AsyncIterator[bytes]:
    fd = sys.stdin.fileno()
    while data := await anyio.to_thread.run_sync(os.read, fd, PIECE_BYTES, abandon_on_cancel=True):
        yield data
