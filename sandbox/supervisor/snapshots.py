"""Snapshots of the workspace, for checkpoints with files; kept by a process of their own.

What that process holds, no code of the session can look at or change, although it has the same uid:
it is in memory that only a tracer could read, and nobody may trace. Code can end the process, and
then the snapshots are lost, which is told.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import sandbox
from sandbox.errors import (
    Conflict,
    FileError,
    InfrastructureError,
    NotFound,
    QuotaExceeded,
    SandboxError,
    TooMuchWork,
)
from sandbox.supervisor.children import Child, Children
from sandbox.supervisor.pipes import Descriptor
from sandbox.supervisor.restraint import every_descriptor
from sandbox.supervisor.tasks import Background

PATIENCE_S = 120.0
"""Twice what the process gives itself: then it was stopped or hangs, and is ended."""
ENDING_S = 1.0
"""How long after the end of its socket its own is awaited."""
MAX_ANSWER_BYTES = 256 * 1024
_TOLD: tuple[type[SandboxError], ...] = (Conflict, NotFound, QuotaExceeded, TooMuchWork)
_ERRORS = {error.code: error for error in _TOLD}
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from sandbox.supervisor.snapshotkeeper.keeper import main; main()"
)


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """What a snapshot holds, and what it took to take it."""

    files: int
    """Names of files; those of one file counted each."""
    folders: int
    links: int
    bytes: int
    """Of all files, without holes."""
    copied_bytes: int
    """Of those that were not in a snapshot before."""
    held_bytes: int
    """What all snapshots take of the session's memory now."""
    changing: tuple[str, ...]
    """The first of the files that were written to while they were read, so that they may be
    neither as before nor as after."""
    changing_count: int
    left_out: tuple[str, ...]
    """The first of what no snapshot holds: FIFOs, sockets, other filesystems."""
    left_out_count: int
    took_s: float


@dataclass(frozen=True, slots=True)
class RestoreInfo:
    """What was done to put a snapshot back."""

    written: int
    """Files and links that were gone or different."""
    written_bytes: int
    removed: int
    """Files, links and folders that were not in the snapshot or were different."""
    mended: int
    """Files, links and folders that only got their mode or time back."""
    kept: int
    """Names of files and links that were as they were."""
    lost: tuple[str, ...]
    """The first of the FIFOs and sockets that were there, and are gone."""
    lost_count: int
    left: str
    """A folder of the workspace with what was removed, where that cannot be deleted; else empty."""
    took_s: float


class Snapshots:
    """The snapshots of one workspace. One operation at a time; others wait for it.

    Args:
        reserve_bytes: What else than usual has to stay free of the session's memory.
    """

    def __init__(
        self,
        workspace: str,
        children: Children,
        env: Mapping[str, str],
        tasks: Background,
        reserve_bytes: int = 0,
    ) -> None:
        self._workspace = workspace
        self._children = children
        self._env = env
        self._tasks = tasks
        self._reserve_bytes = reserve_bytes
        self._busy = asyncio.Lock()
        self._keeper: _Keeper | None = None
        self._kept: dict[str, SnapshotInfo] = {}
        self._lost: dict[str, str] = {}

    def names(self) -> tuple[str, ...]:
        """The names of the snapshots that there are, oldest first."""
        self._notice_the_end()
        return tuple(self._kept)

    async def take(self, name: str) -> SnapshotInfo:
        """Take a snapshot: what was not in one before is copied.

        Raises:
            QuotaExceeded: It does not fit; nothing was changed.
            Conflict: There is one of that name, or what is there does not stay the same.
            TooMuchWork: It took too long; nothing was changed.
            FileError: Something cannot be read; nothing was changed.
            InfrastructureError: The process that keeps snapshots cannot be started, or was ended.
        """
        return await self._tasks.finish(self._take(name))

    async def restore(self, name: str) -> RestoreInfo:
        """Make the workspace what it was; the snapshot stays.

        Everything that differs is made beside what is there, and then put in its place.

        Raises:
            NotFound: There is no such snapshot, or it was lost; says why.
            FileError: ``no_space``, with figures; or something cannot be read. Nothing was changed.
            Conflict: What is there does not stay the same. Nothing was changed.
            TooMuchWork: It took too long. Nothing was changed.
            InfrastructureError: It could neither be done nor undone, and says what; or the process
                was ended meanwhile.
        """
        return await self._tasks.finish(self._restore(name))

    async def drop(self, name: str) -> None:
        """Forget a snapshot; what only it holds is freed. With the last one the process ends.

        Raises:
            NotFound: There is none of that name.
        """
        await self._tasks.finish(self._drop(name))

    async def _take(self, name: str) -> SnapshotInfo:
        async with self._busy:
            self._notice_the_end()
            if self._keeper is None:
                self._keeper = self._start()
            try:
                info = _snapshot_info(await self._ask(self._keeper, "take", name))
            except SandboxError:
                self._end_if_unused()
                raise
            self._kept[name] = info
            self._lost.pop(name, None)
            return info

    async def _restore(self, name: str) -> RestoreInfo:
        async with self._busy:
            keeper = self._keeper_of(name)
            return _restore_info(await self._ask(keeper, "restore", name))

    async def _drop(self, name: str) -> None:
        async with self._busy:
            self._notice_the_end()
            if self._lost.pop(name, None) is not None:
                return
            await self._ask(self._keeper_of(name), "drop", name)
            del self._kept[name]
            self._end_if_unused()

    def _keeper_of(self, name: str) -> _Keeper:
        self._notice_the_end()
        if name in self._lost:
            raise NotFound(f"The snapshot {name!r} was lost: {self._lost[name]}.")
        if self._keeper is None or name not in self._kept:
            raise NotFound(f"There is no snapshot named {name!r}.")
        return self._keeper

    def _start(self) -> _Keeper:
        arguments = [self._workspace, str(self._reserve_bytes)]
        return _Keeper(self._children, self._env, arguments)

    async def _ask(self, keeper: _Keeper, operation: str, name: str) -> dict[str, Any]:
        try:
            return await keeper.ask({"op": operation, "name": name})
        except _Ended as exc:
            had_some = bool(self._kept)
            self._notice_the_end()
            if not had_some:
                raise InfrastructureError(f"No snapshot can be kept: {exc}.") from exc
            raise InfrastructureError(
                f"The snapshots of this session are lost: {exc}.",
                remedy="Take new ones. If files were being put back, look at them first.",
            ) from exc

    def _notice_the_end(self) -> None:
        if self._keeper is not None and not self._keeper.alive:
            why = self._keeper.why
            self._lost |= dict.fromkeys(self._kept, why)
            self._kept.clear()
            self._keeper.close()
            self._keeper = None

    def _end_if_unused(self) -> None:
        if self._keeper is not None and not self._kept:
            self._keeper.close()
            self._keeper = None


class _Ended(Exception):
    """The process has ended; says why."""


class _Keeper:
    """The process that keeps snapshots, and the way to it."""

    def __init__(self, children: Children, env: Mapping[str, str], arguments: list[str]) -> None:
        ours, theirs = socket.socketpair()
        root = os.path.dirname(os.path.dirname(os.path.abspath(sandbox.__file__)))
        argv = [sys.executable, "-I", "-S", "-c", _START, root, *arguments]
        with theirs:
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                with every_descriptor():
                    self._child: Child = children.spawn(
                        argv, env=env, cwd="/", stdin=theirs.fileno(), stdout=null, stderr=2
                    )
            except BaseException:
                ours.close()
                raise
            finally:
                os.close(null)
        self._pipe = Descriptor(ours.detach())
        self._is_silent = False

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._pipe.fd >= 0 and self._child.alive

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises:
            SandboxError: The answer is an error.
            _Ended: It has ended, or does not answer.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._pipe.write(json.dumps(request).encode() + b"\n")
                found = await self._answer()
        except (TimeoutError, OSError, ValueError) as exc:
            await self._end()
            raise _Ended(self.why) from exc
        if "error" in found:
            raise _error(cast("dict[str, Any]", found["error"]))
        return found

    async def _answer(self) -> dict[str, Any]:
        raw = bytearray()
        while not raw.endswith(b"\n"):
            data = await self._pipe.read()
            if not data or len(raw) > MAX_ANSWER_BYTES:
                raise ValueError("no whole answer")
            raw += data
        return json.loads(raw)

    async def _end(self) -> None:
        """End it, if it has not ended by itself."""
        try:
            async with asyncio.timeout(ENDING_S):
                await asyncio.shield(self._child.exit)
        except TimeoutError:
            self._is_silent = True
            self._child.kill_tree()
            await asyncio.shield(self._child.exit)

    @property
    def why(self) -> str:
        """Why it has ended."""
        number = None if self._child.alive else self._child.exit.result().signal
        if self._is_silent:
            return "the process that kept them did not answer any more"
        if number is None:
            return "the process that kept them has ended by itself"
        memory = " for want of memory" if self._child.is_out_of_memory else ""
        return f"the process that kept them was ended by {signal.Signals(number).name}{memory}"

    def close(self) -> None:
        """Let it end, with all that it keeps."""
        if self._child.alive:
            self._child.kill_tree()
        self._pipe.close()


def _error(found: Mapping[str, Any]) -> SandboxError:
    code, message = str(found.get("code")), str(found.get("message"))
    remedy = str(found.get("remedy", ""))
    if code == FileError.code:
        return FileError(str(found.get("reason") or "io_error"), message, remedy=remedy)
    return _ERRORS.get(code, InfrastructureError)(message, remedy=remedy)


def _snapshot_info(found: dict[str, Any]) -> SnapshotInfo:
    named = {name: tuple(found.pop(name)) for name in ("changing", "left_out")}
    return SnapshotInfo(**named, **found)


def _restore_info(found: dict[str, Any]) -> RestoreInfo:
    return RestoreInfo(lost=tuple(found.pop("lost")), **found)
