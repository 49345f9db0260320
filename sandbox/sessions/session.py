"""One session: a container from its creation to its removal, and what can be done in it.

A session is one task of its manager (:meth:`Session.run`): it makes the container, proves that the
policy is enforced, keeps the link up, and removes the container at the end, however that comes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from sandbox.egress import Gateway, Tightening
from sandbox.errors import (
    Conflict,
    InfrastructureError,
    LinkLost,
    SandboxError,
    SessionLost,
)
from sandbox.files import Files
from sandbox.kernels import DEFAULT_KERNEL_ID, Kernels
from sandbox.link import Link
from sandbox.mounts import Identity, look
from sandbox.processes import Processes
from sandbox.proof import Check, NotProved, Proof, inspected, measure, prove
from sandbox.sessions.approvals import Approvals
from sandbox.sessions.birth import Birth, Surroundings
from sandbox.sessions.connection import Connection
from sandbox.sessions.endings import Ending, cause_of_end, ended_error
from sandbox.sessions.groups import one_error
from sandbox.sessions.journal import SessionState
from sandbox.sessions.keeping import Keeper
from sandbox.sessions.models import SessionInfo, SessionProof
from sandbox.sessions.record import SessionRecord
from sandbox.spec import CA_FILE, SECRETS, mismatches
from sandbox.terminals import Terminals

RECONNECT_WAIT_S = 20.0
VERDICT_WAIT_S = 5.0
REMOVE_TIMEOUT_S = 30.0
METER_TIMEOUT_S = 3.0
END_TIMEOUT_S = 40.0

logger = logging.getLogger(__name__)


class Session:
    """One caller's container and all in it.

    Made by the manager only. Use ``kernels``, ``processes``, ``terminals`` and ``files`` inside
    ``async with session.use():``.

    Args:
        birth: What it is born with.
        around: What it shares with the controller's other sessions.
        keep: Whether its container is left alone when the manager is cancelled.
    """

    def __init__(self, birth: Birth, around: Surroundings, *, keep: bool) -> None:
        limits = birth.policy.limits
        self.session_id = birth.identity.session_id
        self.principal = birth.identity.principal
        self.uid = birth.identity.uid
        self.policy = birth.policy
        self._policy_digest = birth.policy.digest
        self.name = birth.name
        self.opener_key = birth.opener_key
        self.default_key = birth.default_key
        self.container_id = birth.container_id
        self.is_adopted = birth.container_id is not None
        self.state: SessionState = "opening"
        self.approvals = Approvals(self.session_id, self.principal, birth.policy, around.audit)
        egress = replace(around.egress, secrets=birth.secrets, approver=self.approvals)
        self.network = Gateway(
            self.session_id, self.principal, birth.policy, egress, birth.tightened
        )
        self._quotas = around.quotas
        denials = self.network.denials
        self.redactor = birth.secrets.redactor
        """Takes the values of its secrets out of what leaves it."""
        self.kernels = Kernels(
            self.session_id,
            limits,
            around.journal,
            denials=denials,
            admit=self._admit_execution,
            redactor=self.redactor,
            oom_probe=self._ran_out_of_memory,
        )
        self.processes = Processes(
            limits, denials, admit=self._admit_execution, redactor=self.redactor
        )
        self.terminals = Terminals(limits, denials, admit=self._admit_work, redactor=self.redactor)
        self.files = Files(limits)
        self._keeper: Keeper | None = None
        if birth.workspace is not None:
            self._keeper = Keeper(
                birth.workspace,
                birth.policy.workspace,
                around.clock,
                lambda: self.last_activity,
            )
        self._identity = birth.identity
        self._spec = birth.spec
        self._certificates = birth.certificates
        self._secrets = birth.secrets
        self._has_its_files = self.is_adopted
        self._was_opened = self._is_handed_over = self.is_adopted
        self._is_proved = birth.is_proved
        self._proof: Proof | None = None
        self._roots = around.roots
        self._directories: dict[str, Identity] | None = None
        self._inspected: tuple[Check, ...] = ()
        self._shown_proof = birth.proof
        self._runtime = around.runtime
        self._journal = around.journal
        self._record = SessionRecord(around.audit, birth)
        self._opening = around.opening
        self._connecting = around.connecting
        self._clock = around.clock
        self._keep = keep
        self._connection: Connection | None = None
        self._leases = 0
        self._last_activity = self._noted_activity = birth.last_activity
        self._ending: tuple[Ending, str] | None = None
        self._given_up = "it was given up"
        self._settled = anyio.Event()
        self._stop = anyio.Event()
        self._over = anyio.Event()

    # --- what it is

    @property
    def key(self) -> tuple[str, str]:
        """What it is looked up by: principal and id."""
        return (self.principal, self.session_id)

    @property
    def is_ending(self) -> bool:
        """Whether its end has begun."""
        return self._ending is not None

    @property
    def is_usable(self) -> bool:
        """Whether a caller can be given it now."""
        return self.state == "open" and not self.is_ending

    @property
    def inspected(self) -> tuple[Check, ...]:
        """What the engine said of the container, against the spec; empty for an adopted one."""
        return self._inspected

    def info(self, *, with_proof: bool = False) -> SessionInfo:
        """The session as it is now.

        Args:
            with_proof: Whether each check is to be told, too.
        """
        proof = self._shown_proof
        return SessionInfo(
            session_id=self.session_id,
            name=self.name,
            state=self.state,
            is_default=self.default_key is not None,
            policy=self.policy.name,
            policy_digest=self._policy_digest,
            image=self._spec.image,
            runtime=self._spec.runtime,
            created_at=self._identity.created_at,
            expires_at=self._identity.expires_at,
            idle_expires_at=self.idle_expires_at,
            limits=self.policy.limits,
            kernels=self.kernels.infos,
            checks_passed=sum(check.ok for check in proof.checks) if proof else 0,
            proof=proof if with_proof else None,
            **self._workspace_facts(),
            network=self.network.info(),
        )

    @property
    def workspace_name(self) -> str:
        """The name of its workspace; empty for none."""
        return self._keeper.name if self._keeper else ""

    def _workspace_facts(self) -> dict[str, Any]:
        if self._keeper is None:
            return {}
        kept = self._keeper.kept
        return {
            "workspace_name": self._keeper.name,
            "workspace_saved_at": kept.saved_at if kept else None,
            "workspace_bytes": kept.size_bytes if kept else 0,
            "workspace_problem": self._keeper.problem,
        }

    @property
    def last_activity(self) -> float:
        """Unix time at which it was last used; now, while it is in use."""
        if self._leases or any(kernel.state == "busy" for kernel in self.kernels.infos):
            return self._clock()
        return max(self._last_activity, self.terminals.last_activity_at)

    @property
    def idle_expires_at(self) -> float:
        """Unix time at which it ends unless it is used."""
        return min(self.last_activity + self.policy.limits.idle_s, self._identity.expires_at)

    def expiry(self) -> str:
        """Why it should end now, in words; empty when it should not."""
        now = self._clock()
        if now >= self._identity.expires_at:
            return f"its lifetime of {self.policy.limits.lifetime_s:g} s was over"
        if now >= self.idle_expires_at:
            return f"it was not used for {self.policy.limits.idle_s:g} s"
        return ""

    def tighten(self, more: Tightening) -> None:
        """Take something from its network for good; what is no longer allowed is cut at once.

        Raises:
            QuotaExceeded: Those are too many rules.
            InfrastructureError: It cannot be noted, so nothing was changed.
        """
        self._journal.tightened(self.session_id, self.network.tightening(more))
        self.network.tighten(more)
        self._record.tightened(self.container_id or "", str(more))

    # --- its use

    def hand_over(self) -> None:
        """Say that its caller has it, so that a cancelled opening no longer takes it back."""
        self._is_handed_over = True

    def touch(self) -> None:
        """Count this moment as use."""
        self._last_activity = self._clock()

    def note_activity(self) -> None:
        """Write to the journal when it was last used, if that changed since."""
        latest = self.last_activity
        if latest > self._noted_activity:
            self._journal.used(self.session_id, latest)
            self._noted_activity = latest

    async def meter(self) -> None:
        """Count the processor time that it has used.

        Raises:
            SandboxError: It cannot be measured or written down.
        """
        if self.container_id is not None and self._quotas.meters_cpu:
            stats = await self._runtime.stats(self.container_id)
            self._quotas.note_cpu(self.principal, self.session_id, stats.cpu_s)

    def _admit_execution(self) -> None:
        self._quotas.admit_execution(self.principal)

    def _admit_work(self) -> None:
        self._quotas.admit_work(self.principal)

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[None]:
        """Hold a lease: the session does not idle out meanwhile, and its link is up at the start.

        Raises:
            SessionLost: The session has ended, or ends while it is used.
            LinkLost: The link is not back within a bound; the session may be.
        """
        self._leases += 1
        try:
            await self.ready()
            if self._connection is not None and not self._connection.is_up:
                await self._reconnected(self._connection)
            try:
                yield
            except LinkLost as exc:
                if self._connection is not None:
                    await self._verdict(self._connection)
                self._check_usable(exc)
                raise
        finally:
            self._leases -= 1
            self.touch()

    async def ready(self) -> None:
        """Wait until it can be used.

        Raises:
            SessionLost: It has ended.
            LinkLost: It is still being taken back from an earlier controller.
        """
        with anyio.move_on_after(RECONNECT_WAIT_S):
            await self._settled.wait()
        if not self._settled.is_set():
            raise _reconnecting()
        self._check_usable()

    def _check_usable(self, cause: BaseException | None = None) -> None:
        if not self.is_usable:
            ending, reason = self._ending or ("lost", "it could not be opened")
            state: SessionState = "closed" if ending == "kept" else ending
            raise ended_error(self.session_id, state, reason) from cause

    async def _reconnected(self, connection: Connection) -> None:
        if not await connection.settled(RECONNECT_WAIT_S):
            raise _reconnecting()
        await self._verdict(connection)
        self._check_usable()

    async def _verdict(self, connection: Connection) -> None:
        """After a lost link, wait until it is known whether the session is lost too."""
        if await connection.settled(VERDICT_WAIT_S) and connection.is_over:
            with anyio.move_on_after(VERDICT_WAIT_S):
                await self._stop.wait()

    # --- its life

    async def end(self, ending: Ending, reason: str) -> None:
        """End it and wait until it is over; harmless when it is ending already."""
        self.begin_end(ending, reason)
        await self.wait_over()

    async def wait_over(self) -> None:
        """Wait until it is over, within a bound."""
        saving_s = self._keeper.patience_s if self._keeper else 0.0
        with anyio.move_on_after(END_TIMEOUT_S + saving_s):
            await self._over.wait()

    def begin_end(self, ending: Ending, reason: str) -> None:
        """Start to end it; the first reason counts."""
        if self._ending is None:
            self._ending = (ending, reason)
            self._stop.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Live: in a task of the manager, started when the session is ready for its caller.

        Raises:
            SandboxError: It could not be opened; nothing is left of it.
        """
        try:
            await self._live(task_status)
            if not self._was_opened:
                raise SessionLost("The session was ended while it was opened.")
        except SandboxError as exc:
            if not self._was_opened:
                self._given_up = exc.message
                raise
            self.begin_end("lost", await self._cause(exc))
        except Exception:
            if not self._was_opened:
                raise
            logger.exception("session %s", self.session_id)
            self.begin_end("lost", "an internal error of the controller; its log says more")
        finally:
            with anyio.CancelScope(shield=True):
                await self._tear_down()

    async def _live(self, task_status: TaskStatus[None]) -> None:
        async with one_error() as tasks:
            tasks.start_soon(self._cancel_at_end, tasks.cancel_scope)
            await self._bring_up(tasks)
            self.state = "open"
            self._was_opened = True
            self._record.opened(self.container_id or "", self._proof, is_adopted=self.is_adopted)
            self._settled.set()
            task_status.started()

    async def _cancel_at_end(self, scope: anyio.CancelScope) -> None:
        await self._stop.wait()
        is_orderly = self._ending is not None and self._ending[0] in ("closed", "expired")
        if self._keeper is not None and self._was_opened and is_orderly:
            await self._keeper.save_last()
        scope.cancel()

    async def _bring_up(self, tasks: TaskGroup) -> None:
        if not self.is_adopted:
            self._journal.opening(
                self.session_id, self.principal, self.opener_key, self.name, self._last_activity
            )
        tasks.start_soon(self.kernels.run)
        tasks.start_soon(self.terminals.run)
        if self.container_id is not None:  # the adoption has looked at it
            await self._connect(self.container_id, tasks)
            if self._keeper is not None:
                tasks.start_soon(self._keeper.run)
            return
        async with self._opening:
            container_id = ""
            await self._look()
            # Shielded, so that the id of a container that was made is always known here.
            with anyio.CancelScope(shield=True):
                self.container_id = container_id = await self._runtime.create(self._spec)
            await self._runtime.start(container_id)
            async with anyio.create_task_group() as checks:
                checks.start_soon(self._check_container, container_id)
                await self._connect(container_id, tasks)
        if self._keeper is not None:
            await self._keeper.restore()
            tasks.start_soon(self._start_first_kernel)
            tasks.start_soon(self._keeper.run)
        self._journal.opened(self.session_id, self.info(with_proof=True), self.default_key)

    async def _connect(self, container_id: str, tasks: TaskGroup) -> None:
        async def attach(link: Link) -> None:
            await self._attach(link, tasks)

        self._connection = Connection(
            self._runtime,
            container_id,
            attach,
            on_open=self.network.serve,
            gate=self._connecting,
            is_new=not self.is_adopted,
        )
        await tasks.start(self._connection.run)

    async def _check_container(self, container_id: str) -> None:
        """Compare what the engine made of the container with the spec."""
        info = await self._runtime.inspect(container_id)
        if info.state == "missing":
            raise SessionLost("The session's container was removed while it was opened.")
        self._inspected = inspected(self._spec, info.facts)
        if wrong := mismatches(self._spec, info.facts):
            raise NotProved(
                "The container does not match its policy and was removed: " + "; ".join(wrong),
                self._inspected,
                is_measured=False,
                remedy="`sandbox doctor` checks the engine.",
            )

    async def _attach(self, link: Link, tasks: TaskGroup) -> None:
        async with anyio.create_task_group() as attaching:
            if not self._is_proved:
                attaching.start_soon(self._prove, link)
            elif self._proof is None:
                tasks.start_soon(self._prove_again, link)
            for part in (self.terminals, self.processes, self.files):
                attaching.start_soon(part.attach, link)
            if self._keeper is not None:
                attaching.start_soon(self._keeper.attach, link)
            if self._certificates:
                attaching.start_soon(self._give_certificates)
            if not self._has_its_files:
                attaching.start_soon(self._give_secrets)
            await self.kernels.attach(link)
            if not self.is_adopted and self.state == "opening" and self._keeper is None:
                # While the proof is made: most callers want a kernel, and want it at once.
                tasks.start_soon(self._start_first_kernel)

    async def _ran_out_of_memory(self) -> bool | None:
        """What the engine knows when a kernel died and nobody says of what."""
        with suppress(SandboxError):
            if (await self._runtime.inspect(self.container_id or "")).oom_killed:
                return True
        return None

    async def _look(self) -> dict[str, Identity]:
        """The directories that are to be mounted, as they were before the container was made."""
        if self._directories is None:
            self._directories = await look(self._spec.mounts, self._roots)
        return self._directories

    async def _prove(self, link: Link) -> None:
        self._keep_proof(await prove(link, self._spec, await self._look()))
        self._is_proved = True

    async def _prove_again(self, link: Link) -> None:
        """Renew the proof of a session that was taken back, and show what came of it.

        The adoption has held the engine's inspection against the spec, and that decides. Inside
        are people who may use up all processes, or stand in the supervisor's place: neither that
        it cannot measure now nor what it says against itself is a reason to take their work away.
        """
        try:
            proof = await measure(link, self._spec, await self._look())
        except SandboxError as exc:
            logger.warning("session %s was not proved again: %s", self.session_id, exc.message)
            return
        for check in proof.failed:
            logger.warning(
                "session %s: %s must be %s, is %s",
                self.session_id,
                check.name,
                check.expected,
                check.found,
            )
        self._keep_proof(proof)

    def _keep_proof(self, proof: Proof) -> None:
        self._proof = proof
        self._shown_proof = SessionProof(
            proved_at=self._clock(),
            runtime=proof.runtime,
            checks=proof.checks,
            inspected=len(self._spec.facts()),
        )

    async def _give_certificates(self) -> None:
        """Put them where the variables of its environment say; once, for they may be changed."""
        await self.files.write(CA_FILE, self._certificates, create_parents=True)
        self._certificates = b""

    async def _give_secrets(self) -> None:
        """Write those that it is given as files; its code has not begun yet."""
        for name, secret in self._secrets.files.items():
            value = secret.reveal().encode()
            await self.files.write(f"{SECRETS}/{name}", value, mode=0o400, create_parents=False)
        self._has_its_files = True

    async def _start_first_kernel(self) -> None:
        try:
            await self.kernels.start(kernel_id=DEFAULT_KERNEL_ID)
        except Conflict:
            return  # a caller was quicker
        except SandboxError as exc:  # the first execution tries again, and tells its caller
            logger.warning("session %s: no first kernel: %s", self.session_id, exc)

    async def _cause(self, error: SandboxError) -> str:
        """Why a session that had been open was lost."""
        if isinstance(error, SessionLost) and self.container_id is not None:
            with anyio.CancelScope(shield=True), suppress(SandboxError):
                return cause_of_end(await self._runtime.inspect(self.container_id)) or error.message
        return error.message

    async def _tear_down(self) -> None:
        is_kept = self._keep and self._is_handed_over  # when the manager itself is cancelled
        fallback: tuple[Ending, str] = ("kept", "") if is_kept else ("closed", self._given_up)
        ending, reason = self._ending = self._ending or fallback
        self._settled.set()
        if ending == "kept":
            with suppress(InfrastructureError):
                self.note_activity()
            await self.kernels.aclose()
        else:
            if self._keeper is not None and self._was_opened:
                reason = f"{reason}; {self._keeper.left_behind}"
                self._ending = (ending, reason)
            info = self.info() if self._was_opened else None
            self.state = ending
            await self.kernels.aclose(lost=f"The session is {ending}: {reason}.")
            with anyio.move_on_after(METER_TIMEOUT_S), suppress(SandboxError):
                await self.meter()
            self._quotas.forget(self.session_id)
            await self._remove()
            self._note_end(ending, reason, info)
        if self._keeper is not None:
            self._keeper.close(is_kept=ending == "kept")
        self._record.ended(self.container_id or "", ending, reason, was_opened=self._was_opened)
        self._over.set()

    def _note_end(self, state: SessionState, reason: str, info: SessionInfo | None) -> None:
        try:
            if self._was_opened:
                self._journal.ended(self.session_id, state, reason, info, self._clock())
            else:
                self._journal.not_opened(self.session_id)
        except InfrastructureError as exc:
            logger.error("session %s: its end could not be noted: %s", self.session_id, exc)

    async def _remove(self) -> None:
        """Remove the container; if the engine does not answer, the sweeper does it later."""
        if self.container_id is None:
            return
        with anyio.move_on_after(REMOVE_TIMEOUT_S) as scope:
            try:
                await self._runtime.remove(self.container_id)
            except SandboxError as exc:
                logger.warning("container %.12s stays for now: %s", self.container_id, exc)
        if scope.cancelled_caught:
            logger.warning("container %.12s stays for now: no answer", self.container_id)


def _reconnecting() -> LinkLost:
    return LinkLost(
        "The connection to the session was lost and is being made again.",
        remedy="Try again in a moment; what runs in the session goes on meanwhile.",
    )
