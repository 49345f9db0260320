"""Branches and checkpoints of Python kernels: forks of their processes, alive or frozen.

What a kernel says of a fork is hostile: that there is one tells its mark, which was given to nobody
else, and that it is a kernel tells its answer. Whatever fails leaves the kernel as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from sandbox.errors import Conflict, InfrastructureError, NotFound, QuotaExceeded
from sandbox.link.stream import Stream
from sandbox.supervisor import headroom, oom
from sandbox.supervisor.children import Child, Children
from sandbox.supervisor.frozen import FrozenSocket
from sandbox.supervisor.kernelhost import KernelHost
from sandbox.supervisor.kernelhosts import KernelHosts
from sandbox.supervisor.kernelprocess import Process, Received
from sandbox.supervisor.pairchannels import PairChannels
from sandbox.supervisor.requests import answer, flag, identifier
from sandbox.supervisor.restraint import every_descriptor
from sandbox.supervisor.snapshots import RestoreInfo, SnapshotInfo
from sandbox.supervisor.tasks import Background

MAX_CHECKPOINTS = 32
"""Of all kernels together, those that were lost and not yet dropped included."""
RELEASE_S, RELEASE_POLL_S = 0.5, 0.02
"""After an end it takes a moment until memory is free again."""
MAX_REFUSAL_CHARS = 4000
MAX_BLOCKERS = 20

Ask = Callable[[list[int], int], Awaitable[Any]]
"""Has a process fork itself, given the fork's descriptors and mark; returns what it says of it."""


class WorkspaceSnapshots(Protocol):
    """The files of checkpoints, by name."""

    async def take(self, name: str) -> SnapshotInfo:
        """Keep the workspace as it is."""
        ...

    async def restore(self, name: str) -> RestoreInfo:
        """Make the workspace what it was, or change nothing."""
        ...

    async def drop(self, name: str) -> None:
        """Forget what was kept."""
        ...


@dataclass(slots=True, eq=False)
class Checkpoint:
    """A frozen fork of a kernel."""

    kernel: KernelHost
    name: str
    created_at: float
    is_auto: bool
    has_files: bool
    child: Child
    socket: FrozenSocket
    oom_before: oom.OomCount | None
    is_dropped: bool = False

    @property
    def files_name(self) -> str:
        """What its files are kept under."""
        return f"{self.kernel.kernel_id}/{self.name}"

    def describe(self) -> dict[str, Any]:
        """It as ``kernel.checkpoint`` answers; ``memory_bytes`` would be free without it."""
        return {
            "name": self.name,
            "created_at": self.created_at,
            "memory_bytes": headroom.own_bytes(self.child.pid) if self.child.alive else 0,
            "files": self.has_files,
        }

    def tell_lost(self, evidence: str = "") -> None:
        """Tell in the kernel's log that it is gone.

        Args:
            evidence: Why, where it was given up for want of memory.
        """
        ending = self.child.exit.result()
        is_oom: bool | None = True
        if self.child.is_out_of_memory:
            evidence = "the supervisor ended it, as it goes before kernels"
        elif not evidence:
            is_oom, evidence = oom.verdict(
                self.oom_before,
                signal=ending.signal,
                killed=self.child.killed,
                is_told=not self.child.is_foreign,
            )
        event = {"event": "checkpoint_lost", "name": self.name}
        event |= {"exit_code": ending.code, "signal": ending.signal}
        self.kernel.tell({**event, "oom": is_oom, "oom_evidence": evidence})


class Branches:
    """The operations on branches and checkpoints."""

    def __init__(
        self,
        kernels: KernelHosts,
        children: Children,
        tasks: Background,
        snapshots: WorkspaceSnapshots,
    ) -> None:
        self._kernels = kernels
        self._children = children
        self._tasks = tasks
        self._snapshots = snapshots
        self._checkpoints: dict[tuple[str, str], Checkpoint] = {}
        self._changing = asyncio.Lock()
        kernels.on_stop = self._stopped

    # --- operations

    async def branch(self, stream: Stream) -> None:
        """``kernel.branch``"""
        kernel = self._kernels.find(stream)
        new_id = identifier(stream.request, "new_id")
        reseed = flag(stream.request, "reseed", default=True)
        made = kernel.twin(new_id)

        async def start() -> None:
            async with self._changing:
                kernel.check_idle()
                await self._make_room(kernel)
                ask = _asking(kernel, "live", reseed=reseed)
                await made.start_as(lambda received: self._fork(ask, received), self._tasks)

        await self._kernels.add(made, start())
        await answer(stream, kernel_id=new_id, name=made.name, **made.process())

    async def checkpoint(self, stream: Stream) -> None:
        """``kernel.checkpoint``"""
        kernel = self._kernels.find(stream)
        name = identifier(stream.request, "name")
        with_files, is_auto = flag(stream.request, "files"), flag(stream.request, "auto")
        made, taken = await self._tasks.finish(self._take(kernel, name, with_files, is_auto))
        told = _told(taken, "changing", "left_out") if taken else {}
        await answer(stream, **made.describe(), **told)

    async def rollback(self, stream: Stream) -> None:
        """``kernel.rollback``"""
        kernel, checkpoint = self._find(stream)
        restored = await self._tasks.finish(self._roll_back(kernel, checkpoint))
        told = _told(restored, "lost") if restored else {}
        await answer(stream, **kernel.process(), **told)

    async def checkpoints(self, stream: Stream) -> None:
        """``kernel.checkpoints``"""
        kernel = self._kernels.find(stream)
        found: list[dict[str, Any]] = []
        for each in self._of(kernel.kernel_id):
            found.append({**each.describe(), "alive": each.child.alive})
            await asyncio.sleep(0)  # to measure one with gigabytes takes milliseconds
        await answer(stream, checkpoints=found)

    async def drop_checkpoint(self, stream: Stream) -> None:
        """``kernel.drop_checkpoint``"""
        _, checkpoint = self._find(stream)
        await self._tasks.finish(self._drop(checkpoint))
        await answer(stream)

    # --- what they do

    async def _take(
        self, kernel: KernelHost, name: str, with_files: bool, is_auto: bool
    ) -> tuple[Checkpoint, SnapshotInfo | None]:
        async with self._changing:
            kernel.check_idle()
            key = kernel.kernel_id, name
            if (old := self._checkpoints.get(key)) is not None:
                if old.child.alive:
                    raise Conflict(
                        f"The kernel has a checkpoint {name!r} already.",
                        remedy="Drop it first, or take another name.",
                    )
                await self._forget(old)
            if len(self._checkpoints) >= MAX_CHECKPOINTS:
                raise QuotaExceeded(
                    f"There are {MAX_CHECKPOINTS} checkpoints already.", remedy="Drop some."
                )
            await self._make_room(kernel)
            made, taken = await self._freeze(kernel, name, is_auto), None
            if with_files:
                try:
                    taken = await self._snapshots.take(made.files_name)
                except BaseException:
                    made.is_dropped = True
                    await _end(made)
                    raise
                made.has_files = True
            self._checkpoints[key] = made
            self._tasks.start(self._watch(made))
            return made, taken

    async def _freeze(self, kernel: KernelHost, name: str, is_auto: bool) -> Checkpoint:
        before, mark = oom.read(), self._children.mark()
        with every_descriptor():
            end, theirs = FrozenSocket.pair()
            try:
                said = await kernel.ask("branch", [theirs], branch="frozen", mark=mark)
                child = self._children.adopt_orphan(_pid_of(said), mark, is_frozen=True)
            except BaseException:
                await end.aclose()
                self._children.end_marked(mark)
                raise
        return Checkpoint(kernel, name, time.time(), is_auto, False, child, end, before)

    async def _roll_back(self, kernel: KernelHost, checkpoint: Checkpoint) -> RestoreInfo | None:
        restored: RestoreInfo | None = None
        async with self._changing:
            if not checkpoint.child.alive:
                raise Conflict(
                    f"The checkpoint {checkpoint.name!r} was lost: its process has ended."
                )

            async def put_files_back() -> None:
                nonlocal restored
                if checkpoint.has_files:
                    restored = await self._snapshots.restore(checkpoint.files_name)

            await kernel.replace(
                lambda received: self._fork(checkpoint.socket.ask, received),
                self._tasks,
                {"event": "rolled_back", "name": checkpoint.name},
                put_files_back,
            )
        return restored

    async def _drop(self, checkpoint: Checkpoint) -> None:
        async with self._changing:
            await self._forget(checkpoint)

    async def _fork(self, ask: Ask, received: Received) -> Process:
        """Have a process fork itself, and take charge of the fork, which answers later."""
        channels, mark = PairChannels(received), self._children.mark()
        try:
            said = await ask([os.dup(fd) for fd in channels.theirs], mark)
            child = self._children.adopt_orphan(_pid_of(said), mark)
        except BaseException:
            channels.close()
            self._children.end_marked(mark)
            raise
        channels.forked()
        return Process(child, channels)

    # --- what is kept

    async def _make_room(self, kernel: KernelHost) -> None:
        """See that another fork fits; automatic checkpoints give way to it, the oldest first.

        Raises:
            QuotaExceeded: It does not fit; says the figures.
        """
        automatic = [each for each in self._checkpoints.values() if each.is_auto]
        release = time.monotonic()
        while (found := headroom.headroom()) is not None:
            try:
                found.check(kernel.pid)
                return
            except QuotaExceeded:
                if time.monotonic() < release:
                    await asyncio.sleep(RELEASE_POLL_S)
                    continue
                if not automatic:
                    raise
            oldest = automatic.pop(0)
            await self._forget(oldest)
            oldest.tell_lost(evidence="it made room for another copy of a kernel")
            release = time.monotonic() + RELEASE_S

    async def _watch(self, checkpoint: Checkpoint) -> None:
        """Tell when a checkpoint is lost."""
        await asyncio.shield(checkpoint.child.exit)
        checkpoint.child.kill_tree()
        await checkpoint.socket.aclose()
        if checkpoint.is_dropped:
            return
        checkpoint.tell_lost()

    async def _forget(self, checkpoint: Checkpoint) -> None:
        checkpoint.is_dropped = True
        self._checkpoints.pop((checkpoint.kernel.kernel_id, checkpoint.name), None)
        await _end(checkpoint)
        if checkpoint.has_files:
            with contextlib.suppress(NotFound):  # it was lost
                await self._snapshots.drop(checkpoint.files_name)

    async def _stopped(self, kernel_id: str) -> None:
        async with self._changing:
            for checkpoint in tuple(self._of(kernel_id)):
                await self._forget(checkpoint)

    def _of(self, kernel_id: str) -> Iterator[Checkpoint]:
        return (each for (owner, _), each in self._checkpoints.items() if owner == kernel_id)

    def _find(self, stream: Stream) -> tuple[KernelHost, Checkpoint]:
        kernel = self._kernels.find(stream)
        name = identifier(stream.request, "name")
        checkpoint = self._checkpoints.get((kernel.kernel_id, name))
        if checkpoint is None:
            raise NotFound(f"The kernel has no checkpoint {name!r}.")
        return kernel, checkpoint


def _asking(kernel: KernelHost, kind: str, *, reseed: bool) -> Ask:
    async def ask(fds: list[int], mark: int) -> Any:
        return await kernel.ask("branch", fds, branch=kind, mark=mark, reseed=reseed)

    return ask


def _told(done: SnapshotInfo | RestoreInfo, *lists: str) -> dict[str, Any]:
    """What of files is not as their user may think: the first few by name, and how many."""
    fields = {name: list(getattr(done, name)) for name in lists}
    return {**fields, **{f"{name}_count": getattr(done, f"{name}_count") for name in lists}}


def _pid_of(said: Any) -> int:
    """The number of the fork that a process says it has made.

    Raises:
        Conflict: It has made none; says what is in the way.
        InfrastructureError: It could not, or says what means nothing.
    """
    found = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    if type(pid := found.get("branched")) is int:
        return pid
    if isinstance(blockers := found.get("blockers"), list):
        raise Conflict(_refusal(cast("list[Any]", blockers)))
    raise InfrastructureError(f"The kernel was not copied. {str(found.get('failed'))[:500]}")


def _refusal(blockers: list[Any]) -> str:
    known = [cast("dict[str, Any]", b) for b in blockers[:MAX_BLOCKERS] if isinstance(b, dict)]
    lines = [f"{each.get('what')}: {each.get('remedy')}" for each in known]
    said = "; ".join(" ".join(line.split()) for line in lines)
    return f"This does not carry over to a copy of the kernel: {said}."[:MAX_REFUSAL_CHARS]


async def _end(checkpoint: Checkpoint) -> None:
    checkpoint.child.kill_tree()
    await checkpoint.socket.aclose()
    await asyncio.shield(checkpoint.child.exit)
    await checkpoint.child.tree_gone()
