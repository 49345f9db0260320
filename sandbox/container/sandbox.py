"""A sandbox: one container of one policy, from its creation to its removal.

It is nobody's until a session claims it, and then that session's for good: it serves one, once. It
can be opened first and claimed later, when it has long been ready; or be claimed first, and then
what the session does with each link is done while the proof is made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import NoReturn, Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus

from sandbox.container.checks import Check, NotProved
from sandbox.container.connection import Connection
from sandbox.container.examination import Proof
from sandbox.container.features import Feature
from sandbox.container.freezer import Freezer
from sandbox.container.identity import SandboxIdentity
from sandbox.container.inspection import inspected, mismatches
from sandbox.container.mounts import Identity, look, refuse_sockets, searched
from sandbox.container.proof import measure, prove
from sandbox.container.roots import Root
from sandbox.container.spec import ContainerSpec, Mount
from sandbox.errorgroups import one_error
from sandbox.errors import (
    Conflict,
    ImageMissing,
    LinkLost,
    NotPermitted,
    SandboxError,
    SessionLost,
)
from sandbox.link.link import ByteStream, Link, Stream
from sandbox.policy import Policy
from sandbox.runtimes.base import ContainerInfo, ContainerRuntime, ContainerStats

REMOVE_TIMEOUT_S = 30.0
CAUSE_WAIT_S, CAUSE_POLL_S = 2.0, 0.1
CLAIM_TIMEOUT_S = 3.0
"""For one that has been ready to serve its session."""

logger = logging.getLogger(__name__)


class Claimant(Protocol):
    """Who has claimed a sandbox, as far as the sandbox knows."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """A place among those who call the engine, held during each call for the sandbox."""
        ...

    async def attach(self, link: Link) -> None:
        """Use this link from now on; an error ends the link."""
        ...

    async def serve(self, stream: Stream) -> None:
        """Serve a stream that the supervisor opens."""
        ...


class Sandbox:
    """One container of one policy. Whoever opens it removes it, or leaves it to be adopted.

    Args:
        reports: What the engine's inspection tells; the rest has to be proved inside.
        clock: Unix time, seconds.
        container_id: Of the container that an earlier controller made and proved, and this one
            held against the spec; None when one is to be made.
    """

    def __init__(
        self,
        identity: SandboxIdentity,
        policy: Policy,
        spec: ContainerSpec,
        runtime: ContainerRuntime,
        *,
        reports: AbstractSet[Feature],
        roots: tuple[Root, ...] = (),
        clock: Callable[[], float] = time.time,
        container_id: str | None = None,
    ) -> None:
        self.identity = identity
        self.policy = policy
        self.spec = spec
        self.container_id = container_id
        self.is_adopted = container_id is not None
        self.is_open = False
        """Whether it has become ready: as its spec says, proved, and linked."""
        self.inspected: tuple[Check, ...] = ()
        """What the engine said of the container, against the spec; empty for an adopted one."""
        self.proof: Proof | None = None
        self.proved_at = 0.0
        """Unix time of that proof, seconds."""
        self._runtime = runtime
        self._reports = reports
        self._roots = roots
        self._clock = clock
        self._directories: dict[str, Identity] | None = None
        self._is_proved = self.is_adopted
        self.claimant: Claimant | None = None
        """The session that has claimed it; None while it is nobody's."""
        self._tasks: TaskGroup | None = None
        self.link: Link | None = None
        """The latest one to its supervisor; None before there was any."""
        self.freezer = Freezer(runtime, self._turn, self._hold_still, clock)
        self._connection = Connection(
            self._connect, self._attach, on_open=self._serve, is_new=not self.is_adopted
        )
        self._linked = anyio.CancelScope()
        self._over = anyio.Event()
        self._error: SandboxError = SessionLost("The sandbox was removed.")

    @property
    def is_up(self) -> bool:
        """Whether its link can be used now."""
        return self._connection.is_up

    @property
    def is_over(self) -> bool:
        """Whether its link will never be up again."""
        return self._connection.is_over

    @property
    def searched_mounts(self) -> tuple[Mount, ...]:
        """The folders of the host in which sockets and FIFOs are refused."""
        return searched(self.policy, self.spec.mounts)

    # --- its life

    async def open(
        self, tasks: TaskGroup, place: AbstractAsyncContextManager[None] | None = None
    ) -> None:
        """Make it ready: the container is what its spec says, proved, and its link is up.

        Args:
            place: What is to be held while the engine makes the container.

        Raises:
            Conflict: It was opened before.
            PolicyNotEnforced: The container is less than its policy says.
            SandboxError: It cannot be made, or cannot be reached.
        """
        if self._tasks is not None:
            raise Conflict("This sandbox was opened before.")
        self._tasks = tasks
        if self.container_id is None:
            await self._make(tasks, place)
        else:
            await tasks.start(self._keep_link)
        self.is_open = True

    async def _make(
        self, tasks: TaskGroup, place: AbstractAsyncContextManager[None] | None
    ) -> None:
        await refuse_sockets(self.searched_mounts, await self._look())
        container_id = ""
        async with place or nullcontext():
            # Shielded, so that the id of a container that was made is always known here.
            with anyio.CancelScope(shield=True):
                async with self._turn():
                    self.container_id = container_id = await self._create()
            async with self._turn():
                await self._runtime.start(container_id)
            async with one_error() as checks:
                checks.start_soon(self._check_container)
                await tasks.start(self._keep_link)

    async def _create(self) -> str:
        try:
            return await self._runtime.create(self.spec)
        except ImageMissing as exc:
            policy = self.policy
            raise ImageMissing(
                f"The image of the policy {policy.name!r}, {policy.image}, is not built: "
                f"the engine has no {self.spec.image}.",
                remedy=f"`{policy.build_command}` builds it.",
            ) from exc

    async def claim(self, claimant: Claimant) -> None:
        """Give it to a session for good.

        Raises:
            Conflict: It was claimed before: it serves one session, once.
            SandboxError: The session cannot use the link that is up, or a folder of the host that
                is mounted is another one now.
        """
        if self.claimant is not None:
            raise Conflict("This sandbox is claimed by another session.")
        self.claimant = claimant
        if self.link is not None:
            try:
                with anyio.fail_after(CLAIM_TIMEOUT_S):
                    await self._look_again()
                    await claimant.attach(self.link)
            except TimeoutError as exc:
                raise LinkLost(f"The sandbox did not answer within {CLAIM_TIMEOUT_S:g} s.") from exc
        self.freezer.is_claimed = True

    def let_go(self) -> None:
        """End its link for good; the container is left to whoever has opened it."""
        self.freezer.give_up()
        self._linked.cancel()

    async def wait_over(self) -> None:
        """Wait until its link will never be up again."""
        await self._over.wait()

    async def settled(self, timeout_s: float) -> bool:
        """Wait while a lost link is being made again; whether it is up, or over with it."""
        return await self._connection.settled(timeout_s)

    async def wait_lost(self) -> NoReturn:
        """Wait until its link will never be up again.

        Raises:
            SandboxError: Why, as far as the engine or the link can tell.
        """
        await self._over.wait()
        error = self._error
        if isinstance(error, SessionLost):
            # Who comes back for a link may be refused before the engine says that it has ended.
            with suppress(SandboxError), anyio.move_on_after(CAUSE_WAIT_S):
                cause = cause_of_end(await self._inspect())
                while not cause:
                    await anyio.sleep(CAUSE_POLL_S)
                    cause = cause_of_end(await self._inspect())
                error = SessionLost(cause)
        raise error

    async def remove(self) -> None:
        """Remove the container; one that the engine does not remove in time is left to a sweep."""
        self.let_go()
        if self.container_id is None:
            return
        with anyio.move_on_after(REMOVE_TIMEOUT_S) as scope:
            try:
                async with self._turn():
                    await self._runtime.remove(self.container_id)
            except SandboxError as exc:
                logger.warning("container %.12s stays for now: %s", self.container_id, exc)
        if scope.cancelled_caught:
            logger.warning("container %.12s stays for now: no answer", self.container_id)

    # --- what it is doing

    async def stats(self) -> ContainerStats | None:
        """What it uses now; None while it has no container.

        Raises:
            SessionLost: Its container is gone or does not run.
        """
        if self.container_id is None:
            return None
        async with self._turn():
            return await self._runtime.stats(self.container_id)

    async def ran_out_of_memory(self) -> bool | None:
        """Whether the engine says that it ran out of memory as a whole; None: not known."""
        with suppress(SandboxError):
            if (await self._inspect()).oom_killed:
                return True
        return None

    # --- inside

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        async with nullcontext() if self.claimant is None else self.claimant.turn():
            yield

    async def _connect(self) -> ByteStream:
        return await self.freezer.connect(self.container_id or "")

    def _hold_still(self, is_still: bool) -> None:
        if self.link is not None:
            self.link.is_still = is_still

    async def _inspect(self) -> ContainerInfo:
        async with self._turn():
            return await self._runtime.inspect(self.container_id or "")

    async def _keep_link(self, *, task_status: TaskStatus[None]) -> None:
        """Its first link's failure is the opening's; a later one's is told by `wait_lost`."""
        try:
            with self._linked:
                async with one_error() as tasks:
                    tasks.start_soon(self.freezer.watch)
                    await self._connection.run(task_status=task_status)
        except SandboxError as exc:
            if not self._connection.was_up:
                raise
            self._error = exc
        finally:
            self._over.set()

    async def _check_container(self) -> None:
        """Compare what the engine made of the container with the spec."""
        info = await self._inspect()
        if info.state == "missing":
            raise SessionLost("The container was removed while the sandbox was opened.")
        self.inspected = inspected(self.spec, info.facts, self._reports, info.held)
        if wrong := mismatches(self.spec, info.facts, self._reports, info.held):
            raise NotProved(
                "The container does not match its policy and was removed: " + "; ".join(wrong),
                self.inspected,
                is_measured=False,
                remedy="`sandbox doctor` checks the engine.",
            )

    async def _attach(self, link: Link) -> None:
        # No await from here to the look at the claimant: a claim that comes later attaches itself.
        self.link = link
        async with anyio.create_task_group() as attaching:
            if not self._is_proved:
                attaching.start_soon(self._prove, link)
            elif self.proof is None and self._tasks is not None:
                self._tasks.start_soon(self._prove_again, link)
            if self.claimant is not None:
                await self.claimant.attach(link)

    async def _serve(self, stream: Stream) -> None:
        if self.claimant is None:
            raise NotPermitted("Nobody has this sandbox yet, so nothing leaves it.")
        await self.claimant.serve(stream)

    async def _look(self) -> dict[str, Identity]:
        """The directories that are to be mounted, as they were before the container was made."""
        if self._directories is None:
            self._directories = await look(self.spec.mounts, self._roots)
        return self._directories

    async def _look_again(self) -> None:
        """Hold what it has mounted against what is there now: it may have waited for long."""
        if not self.spec.mounts:
            return
        there = await look(self.spec.mounts, self._roots)
        if there != await self._look():
            raise SessionLost("A folder that the sandbox mounts was replaced while it waited.")
        await refuse_sockets(self.searched_mounts, there)

    async def _prove(self, link: Link) -> None:
        self._keep_proof(await prove(link, self.spec, await self._look(), reports=self._reports))
        self._is_proved = True

    async def _prove_again(self, link: Link) -> None:
        """Renew the proof of an adopted sandbox, and show what came of it.

        The adoption has held the engine's inspection against the spec, and that decides. Inside
        are people who may use up all processes, or stand in the supervisor's place: neither that
        it cannot measure now nor what it says against itself is a reason to take their work away.
        """
        try:
            proof = await measure(link, self.spec, await self._look(), reports=self._reports)
        except SandboxError as exc:
            logger.warning(
                "sandbox %s was not proved again: %s", self.identity.sandbox_id, exc.message
            )
            return
        for check in proof.failed:
            logger.warning(
                "sandbox %s: %s must be %s, is %s",
                self.identity.sandbox_id,
                check.name,
                check.expected,
                check.found,
            )
        self._keep_proof(proof)

    def _keep_proof(self, proof: Proof) -> None:
        self.proof = proof
        self.proved_at = self._clock()


def cause_of_end(info: ContainerInfo) -> str:
    """Why a container no longer runs, in words; empty when it does."""
    match info.state:
        case "missing":
            return "its container was removed from outside"
        case "exited" if info.exit_code is None and not info.oom_killed:
            return "its container was removed from outside"  # which is still going on
        case "exited" if info.oom_killed:
            return "its container ran out of memory as a whole"
        case "exited":
            return f"its container ended (exit code {info.exit_code})"
        case _:
            return ""
