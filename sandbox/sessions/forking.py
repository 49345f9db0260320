"""Forks of sessions: new ones, in containers of their own, that begin with what another one has.

Files and variables go from the link of one sandbox into those of the others in one pass, piece by
piece, and are not looked into here. A fork is nobody's before it is whole: what comes to nothing
leaves no session, and what it was forked from is as it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from pydantic import BaseModel

from sandbox.answers import linked
from sandbox.config import Settings
from sandbox.egress.models import Tightening
from sandbox.errorgroups import one_error
from sandbox.errors import Conflict, FileError, InvalidRequest, NotFound, NotPermitted
from sandbox.kernels.carrying import CarriedState, carry_in, carry_out
from sandbox.kernels.kernels import DEFAULT_KERNEL_NAME
from sandbox.kernels.models import KernelInfo
from sandbox.policy import Policy
from sandbox.sessions.models import Caller
from sandbox.sessions.opener import Opener, check_name
from sandbox.sessions.ownership import Ownership
from sandbox.sessions.session import Session
from sandbox.workspaces.archive import COPY, PASTE, pack, unpack
from sandbox.workspaces.autosave import limit_bytes

MAX_FORKS = 8
"""Made at once."""
FORK_TIMEOUT_S = 300.0
TIMES_BYTES = 2
"""An archive with times to the nanosecond takes so many times more beside the content."""
LEFT_BEHIND = (
    "history (In, Out), commands, terminals, /tmp, what modules hold, and what a person agreed to"
)
_REFUSALS = (Conflict, InvalidRequest, NotFound)
"""What a kernel that has no variables to give or take answers, which is told and ends no fork."""


class ForkedSession(BaseModel, frozen=True):
    """A session that began as a fork."""

    session_id: str
    name: str
    files: int = 0
    file_bytes: int = 0
    kernels: tuple[CarriedState, ...] = ()
    """Those of its kernels that have another one's variables."""


class Fork(BaseModel, frozen=True):
    """What became of a fork: all that was asked for, or nothing."""

    forked_from: str
    sessions: tuple[ForkedSession, ...]
    files_left: tuple[str, ...] = ()
    """Of the files, what was left out or changed meanwhile, a line each."""
    left_behind: tuple[str, ...] = ()
    """What else is not carried, a line each."""
    took_s: float


class Progress:
    """How far a fork has come, for whoever waits."""

    def __init__(self) -> None:
        self.doing = "opening"
        self.carried_bytes = 0

    def __str__(self) -> str:
        return f"{self.doing}, {self.carried_bytes / 2**20:.0f} MiB"


class Forks:
    """Makes forks of a controller's sessions.

    Args:
        get: Finds a session of a caller's.
        start: Has a new session live, within so many seconds.
    """

    def __init__(
        self,
        opener: Opener,
        ownership: Ownership,
        settings: Settings,
        get: Callable[[Caller, str], Awaitable[Session]],
        start: Callable[[Session, float], Coroutine[Any, Any, None]],
    ) -> None:
        self._opener = opener
        self._ownership = ownership
        self._settings = settings
        self._get = get
        self._start = start

    async def fork(
        self,
        caller: Caller,
        session_id: str = "",
        *,
        name: str = "",
        count: int = 1,
        progress: Progress | None = None,
    ) -> Fork:
        """Fork a session, or the caller's default one, ``count`` times.

        The forks are under the same policy, each for a lifetime of its own. They have what was
        taken from the network of the session, and nothing that a person agreed to for it.

        Raises:
            NotFound: The caller has no such session.
            NotPermitted: Its policy is no longer as it was.
            Conflict: A kernel is busy.
            QuotaExceeded: The caller may not have so many sessions.
            SandboxError: It cannot be done; nothing is left of it.
        """
        names = [name] if count == 1 or not name else [f"{name}-{n + 1}" for n in range(count)]
        for each in names:
            check_name(each)
        began = time.monotonic()
        source = await self._get(caller, session_id)
        policy = self._policy(caller, source)
        state_bytes = min(self._settings.fork_state_bytes, policy.limits.memory_bytes // 2)
        copying = _Copying(source, count, state_bytes, progress or Progress())
        async with source.use():
            copying.check_idle()
            await source.notebooks.save_all()
            async with self._made() as sessions:
                for each in (names * count)[:count]:
                    sessions.append(
                        await self._opener.session(
                            *(caller, policy, each, ""),
                            as_default=False,
                            checkpoint=source.claim.checkpoint,
                            forked_from=source.session_id,
                            fill=copying.fill,
                            may_be_ready=False,
                        )
                    )
                await self._live(sessions, copying)
        for session in sessions:
            session.hand_over()
        return Fork(
            forked_from=source.session_id,
            sessions=tuple(copying.forked(session) for session in sessions),
            files_left=tuple(copying.files_left),
            left_behind=copying.left_behind(),
            took_s=round(time.monotonic() - began, 3),
        )

    def _policy(self, caller: Caller, source: Session) -> Policy:
        policy = self._ownership.policy(caller, source.policy.name)
        if policy.digest != source.policy.digest:
            raise NotPermitted(
                f"The policy {policy.name!r} has changed since this session was opened, and a fork "
                "would be under the new one.",
                remedy="Open another session, and take over the files that you need.",
            )
        return policy

    @asynccontextmanager
    async def _made(self) -> AsyncGenerator[list[Session]]:
        """Sessions that are made in the block: all of them live at its end, or none."""
        sessions: list[Session] = []
        try:
            yield sessions
        except BaseException:
            with anyio.CancelScope(shield=True):
                for session in sessions:
                    if session.was_opened:
                        await session.end("closed", "its fork was given up")
                    self._opener.withdraw(session)
            raise

    async def _live(self, sessions: Sequence[Session], copying: _Copying) -> None:
        async with one_error() as tasks:
            tasks.start_soon(copying.run)
            for session in sessions:
                tasks.start_soon(self._start, session, FORK_TIMEOUT_S)


class _Copying:
    """One pass over what a session has, into all of its forks.

    Each fork waits in :meth:`fill` from the moment it could be given something, until :meth:`run`
    has given all of them everything.
    """

    def __init__(self, source: Session, count: int, state_bytes: int, progress: Progress) -> None:
        self.files_left: list[str] = []
        self._source = source
        self._count = count
        self._state_bytes = state_bytes
        self._progress = progress
        self._targets: list[Session] = []
        self._pasted: dict[str, tuple[int, ...]] = {}
        self._carried: dict[str, list[CarriedState]] = {}
        self._all_here = anyio.Event()
        self._done = anyio.Event()

    async def fill(self, target: Session) -> None:
        """Wait until a fork, of which nobody knows yet, has everything."""
        self._targets.append(target)
        if len(self._targets) == self._count:
            self._all_here.set()
        await self._done.wait()

    async def run(self) -> None:
        """Give the forks everything, once they are all here.

        Raises:
            SandboxError: It cannot be done.
        """
        await self._all_here.wait()
        taken = self._source.network.tightened
        for target in self._targets:
            if taken != Tightening():
                target.tighten(taken)
        self._progress.doing = "files"
        await self._copy_files()
        for kernel in self._python_kernels():
            self._progress.doing = f"variables of {kernel.kernel_id}"
            await self._carry(kernel.kernel_id)
        self._done.set()

    def check_idle(self) -> None:
        """Refuse to fork while a cell runs, for variables are taken between two.

        Raises:
            Conflict: One does.
        """
        for kernel in self._python_kernels():
            if kernel.state == "busy":
                raise Conflict(
                    f"The kernel {kernel.kernel_id} is running a cell, and a fork takes its "
                    "variables between two.",
                    remedy="Wait for the cell's end, or interrupt it, and fork again.",
                )

    def forked(self, session: Session) -> ForkedSession:
        """What a fork was given."""
        files, file_bytes = (*self._pasted.get(session.session_id, ()), 0, 0)[:2]
        return ForkedSession(
            session_id=session.session_id,
            name=session.claim.name,
            files=files,
            file_bytes=file_bytes,
            kernels=tuple(self._carried.get(session.session_id, ())),
        )

    def left_behind(self) -> tuple[str, ...]:
        """What no fork of a session has."""
        lines = [LEFT_BEHIND]
        if name := self._source.claim.workspace:
            lines.append(f"the name {name!r} of the workspace: the files of a fork end with it")
        for kernel in self._source.kernels.infos:
            if kernel.name != DEFAULT_KERNEL_NAME:
                lines.append(f"kernel {kernel.kernel_id} ({kernel.name}), which is not Python's")
            elif kernel.state == "dead":
                lines.append(f"kernel {kernel.kernel_id}, which is dead")
        return tuple(lines)

    def _python_kernels(self) -> list[KernelInfo]:
        return [
            kernel
            for kernel in self._source.kernels.infos
            if kernel.name == DEFAULT_KERNEL_NAME and kernel.state != "dead"
        ]

    async def _copy_files(self) -> None:
        limit = TIMES_BYTES * limit_bytes(self._source.policy.workspace)

        async def paste(target: Session, pieces: AsyncIterator[bytes]) -> None:
            found = await unpack(linked(target.sandbox.link), pieces, PASTE)
            self._pasted[target.session_id] = found

        async with self._tee(paste, limit) as tee:
            self.files_left += await pack(linked(self._source.sandbox.link), tee.give, COPY)

    async def _carry(self, kernel_id: str) -> None:
        """Give the variables of a kernel to one of the same id in each fork."""
        carried: dict[str, CarriedState] = {}
        problem = ""

        async def load(target: Session, pieces: AsyncIterator[bytes]) -> None:
            try:
                await target.kernels.start(kernel_id=kernel_id)
                link = linked(target.sandbox.link)
                state = await carry_in(link, kernel_id, pieces, target.redactor)
            except _REFUSALS as exc:
                state = CarriedState(kernel_id=kernel_id, problem=exc.message)
            carried[target.session_id] = state
            async for _ in pieces:  # what it did not want
                pass

        async with self._tee(load, math.inf) as tee:
            try:
                link = linked(self._source.sandbox.link)
                await carry_out(link, kernel_id, self._state_bytes, tee.give)
            except _REFUSALS as exc:
                problem = self._source.redactor.text(exc.message)
        for session_id, state in carried.items():
            told = state.model_copy(update={"problem": problem or state.problem})
            self._carried.setdefault(session_id, []).append(told)

    @asynccontextmanager
    async def _tee(
        self,
        read: Callable[[Session, AsyncIterator[bytes]], Coroutine[Any, Any, None]],
        limit_bytes: float,
    ) -> AsyncGenerator[_Tee]:
        """Have every fork read what is given in the block, to its end."""
        with _Tee(self._count, self._progress, limit_bytes) as tee:
            async with one_error() as tasks:
                for target, pieces in zip(self._targets, tee.outlets, strict=True):
                    tasks.start_soon(read, target, aiter(pieces))
                yield tee
                tee.end()


class _Tee:
    """Gives each piece to all readers, as fast as the slowest of them takes it."""

    def __init__(self, readers: int, progress: Progress, limit_bytes: float) -> None:
        pairs = [anyio.create_memory_object_stream[bytes](1) for _ in range(readers)]
        self.outlets = [outlet for _, outlet in pairs]
        self._inlets = [inlet for inlet, _ in pairs]
        self._progress = progress
        self._left = limit_bytes

    def __enter__(self) -> _Tee:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.end()
        for outlet in self.outlets:
            outlet.close()

    async def give(self, data: bytes) -> None:
        """Give a piece.

        Raises:
            FileError: It is more than there can be.
        """
        self._left -= len(data)
        if self._left < 0:
            raise FileError("too_large", "More came of the files than the policy lets there be.")
        self._progress.carried_bytes += len(data)
        for inlet in self._inlets:
            await inlet.send(data)

    def end(self) -> None:
        """Say that there is nothing more."""
        for inlet in self._inlets:
            inlet.close()
