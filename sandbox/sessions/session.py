"""One session: a principal's claim of one sandbox, and what can be done in it.

A session is one task of its manager (:meth:`Session.run`): it writes down its claim, has its
sandbox opened unless that is ready already, and has the sandbox removed at the end, however that
comes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from sandbox.bulkheads.overruns import Overruns
from sandbox.bulkheads.shares import Owner
from sandbox.container.sandbox import Sandbox
from sandbox.egress.models import Tightening
from sandbox.errorgroups import one_error
from sandbox.errors import LinkLost, SandboxError, SessionLost
from sandbox.secrets import SessionSecrets
from sandbox.sessions.auditing import SessionRecord
from sandbox.sessions.claims import Claim
from sandbox.sessions.endings import Ending, ended_error, ending_step, still_reconnecting
from sandbox.sessions.idleness import Idleness
from sandbox.sessions.journal import SessionState
from sandbox.sessions.lease import Lease
from sandbox.sessions.models import WORKSPACE, SessionInfo, SessionProof
from sandbox.sessions.notebooknames import NotebookNames
from sandbox.sessions.parts import SessionParts
from sandbox.sessions.services import SessionServices
from sandbox.workspaces.autosave import Autosave
from sandbox.workspaces.holding import Held

RECONNECT_WAIT_S = 20.0
VERDICT_WAIT_S = 5.0
METER_TIMEOUT_S = 3.0
END_TIMEOUT_S = 40.0

logger = logging.getLogger(__name__)


class Session:
    """One caller's sandbox and all in it.

    Made by the manager only; its parts are used inside ``async with session.use():``.

    Args:
        claim: In the journal already if the sandbox is an adopted one.
        last_used: Unix time, seconds.
        certificates: What it is given to trust, in PEM; empty for what its image does.
        fill: Gives a new one what it begins with, before its caller has it.
    """

    workspace = WORKSPACE

    def __init__(
        self,
        claim: Claim,
        sandbox: Sandbox,
        services: SessionServices,
        *,
        secrets: SessionSecrets,
        last_used: float,
        certificates: bytes = b"",
        workspace: Held | None = None,
        fill: Callable[[Session], Awaitable[None]] | None = None,
        tightened: Tightening | None = None,
        earlier_proof: SessionProof | None = None,
    ) -> None:
        self.claim, self.session_id, self.principal = claim, claim.session_id, claim.principal
        self.sandbox = sandbox
        self.policy = sandbox.policy
        self.state: SessionState = "opening"
        self.redactor = secrets.redactor  # of all that leaves it: every part of it has it
        self.lease = Lease(
            self.policy.limits,
            claim.expires_at,
            last_used,
            services.clock,
            lambda: self._parts.last_activity(),
            services.left_s,
        )
        self._autosave = workspace and Autosave(
            workspace, self.policy.workspace, services.clock, lambda: self.lease.last_used
        )
        self._parts = SessionParts(
            claim,
            sandbox,
            services,
            secrets=secrets,
            certificates=certificates,
            tightened=tightened or Tightening(),
            overruns=Overruns(self.session_id, lambda reason: self.begin_end("lost", reason)),
            autosave=self._autosave,
        )
        self.approvals, self.notebook_runs = self._parts.approvals, self._parts.notebook_runs
        self.network, self.files = self._parts.network, self._parts.files
        self.kernels, self.commands = self._parts.kernels, self._parts.commands
        self.terminals, self.notebooks = self._parts.terminals, self._parts.notebooks
        self.notebook_names = NotebookNames()
        self.idleness = Idleness(sandbox, self.lease, self.notebooks, self.redactor.text)
        self._services, self._fill, self._earlier_proof = services, fill, earlier_proof
        self._was_ready = sandbox.is_open
        self._record = SessionRecord(services.audit, claim, sandbox)
        self.was_opened = self._is_handed_over = sandbox.is_adopted
        """Whether it ever became ready for a caller."""
        self._ending: tuple[Ending, str] | None = None
        self._settled, self._stop, self._over = (anyio.Event() for _ in range(3))

    # --- what it is

    @property
    def container_id(self) -> str | None:
        """The engine's id of its container; None before there is one."""
        return self.sandbox.container_id

    @property
    def is_ending(self) -> bool:
        """Whether its end has begun."""
        return self._ending is not None

    @property
    def is_usable(self) -> bool:
        """Whether a caller can be given it now."""
        return self.state == "open" and not self.is_ending

    def info(self, *, with_proof: bool = False) -> SessionInfo:
        """The session as it is now, with each check of its proof if that is wanted."""
        proof = self._proof()
        return SessionInfo(
            session_id=self.session_id,
            name=self.claim.name,
            state=self.state,
            is_default=self.claim.default_key is not None,
            policy=self.policy.name,
            policy_digest=self.claim.policy_digest,
            image=self.sandbox.spec.image,
            runtime=self.sandbox.spec.runtime,
            created_at=self.claim.created_at,
            was_ready=self._was_ready,
            forked_from=self.claim.forked_from,
            expires_at=self.claim.expires_at,
            idle_expires_at=self.lease.idle_expires_at,
            limits=self.policy.limits,
            checkpoint=self.claim.checkpoint,
            checks_passed=sum(check.ok for check in proof.checks) if proof else 0,
            proof=proof if with_proof else None,
            **self._parts.facts(),
            **self.idleness.facts(),
        )

    def _proof(self) -> SessionProof | None:
        proof = self.sandbox.proof
        if proof is None:
            return self._earlier_proof
        return SessionProof(
            proved_at=self.sandbox.proved_at,
            runtime=proof.runtime,
            checks=proof.checks,
            inspected=proof.reported,
        )

    # --- its use

    def hand_over(self) -> None:
        """Say that its caller has it, so that a cancelled opening no longer takes it back."""
        self._is_handed_over = True

    def note_activity(self) -> None:
        """Write to the journal when it was last used, if that changed since."""
        self.lease.note(lambda latest: self._services.journal.used(self.session_id, latest))

    def pass_on(self, key: str) -> None:
        """Give it to another conversation of its caller's, as its default session if it was one.

        Raises:
            InfrastructureError: It cannot be noted, so nothing was changed.
        """
        default = key if self.claim.default_key is not None else None
        self._services.journal.passed_on(self.session_id, key, default)
        self.terminals.pass_on(self.claim.opener_key, key)
        self.notebook_names.pass_on(self.claim.opener_key, key)
        self.claim = replace(self.claim, opener_key=key, default_key=default)
        self.lease.pass_on()
        self._record.passed_on()

    def tighten(self, more: Tightening) -> None:
        """Take something from its network for good; what is no longer allowed is cut at once.

        Raises:
            QuotaExceeded: Those are too many rules.
            InfrastructureError: It cannot be noted, so nothing was changed.
        """
        self._services.journal.tightened(self.session_id, self.network.tightening(more))
        self.network.tighten(more)
        self._record.tightened(self.redactor.text(str(more)))

    async def meter(self) -> None:
        """Count the processor time that it has used.

        Raises:
            SandboxError: It cannot be measured or written down.
        """
        quotas = self._services.quotas
        if quotas.meters_cpu and (stats := await self.sandbox.stats()) is not None:
            quotas.usage.note_cpu(self.principal, self.session_id, stats.cpu_s)

    @asynccontextmanager
    async def use(self, *, counts: bool = True) -> AsyncGenerator[None]:
        """Hold the lease: the session does not idle out meanwhile, and its link is up at the start.

        Args:
            counts: Whether it goes on to count as used when the block has ended.

        Raises:
            SessionLost: The session has ended, or ends while it is used.
            LinkLost: The link is not back within a bound; the session may be.
        """
        with self.lease.hold(counts=counts):
            try:
                await self.ready()
                await self.sandbox.freezer.thaw()
                if not self.sandbox.is_up:
                    await self._reconnected()
                try:
                    yield
                except LinkLost as exc:
                    await self._verdict()
                    self._check_usable(exc)
                    raise
            except SandboxError as exc:  # its text may come from inside
                self.redactor.error(exc)
                raise

    async def ready(self) -> None:
        """Wait until it can be used.

        Raises:
            SessionLost: It has ended.
            LinkLost: It is still being taken back from an earlier controller.
        """
        with anyio.move_on_after(RECONNECT_WAIT_S):
            await self._settled.wait()
        if not self._settled.is_set():
            raise still_reconnecting()
        self._check_usable()

    def _check_usable(self, cause: BaseException | None = None) -> None:
        if not self.is_usable:
            ending = self._ending[0] if self._ending else "lost"
            state: SessionState = "closed" if ending == "kept" else ending
            raise ended_error(self.session_id, state, self._why()) from cause

    def _why(self) -> str:
        """Why it ends, and what is kept of its workspace once nothing more is saved."""
        ending, reason = self._ending or ("lost", "it could not be opened")
        if self._autosave and self.was_opened and ending in ("lost", self.state):
            return f"{reason}; {self._autosave.left_behind}"
        return reason

    async def _reconnected(self) -> None:
        if not await self.sandbox.settled(RECONNECT_WAIT_S):
            raise still_reconnecting()
        await self._verdict()
        self._check_usable()

    async def _verdict(self) -> None:
        """After a lost link, wait until it is known whether the session is lost too."""
        if await self.sandbox.settled(VERDICT_WAIT_S) and self.sandbox.is_over:
            with anyio.move_on_after(VERDICT_WAIT_S):
                await self._stop.wait()

    # --- its life

    async def end(self, ending: Ending, reason: str) -> None:
        """End it and wait until it is over; harmless when it is ending already."""
        self.begin_end(ending, reason)
        await self.wait_over()

    async def wait_over(self) -> None:
        """Wait until it is over, within a bound."""
        saving_s = self._autosave.patience_s if self._autosave else 0.0
        with anyio.move_on_after(END_TIMEOUT_S + saving_s):
            await self._over.wait()

    def begin_end(self, ending: Ending, reason: str) -> None:
        """Start to end it; the first reason counts."""
        if self._ending is None:
            self._ending = (ending, self.redactor.text(reason))
            self._stop.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Live: in a task of the manager, started when the session is ready for its caller.

        Raises:
            SandboxError: It could not be opened; nothing is left of it.
        """
        given_up = "it was given up"
        try:
            await self._live(task_status)
            if not self.was_opened:
                raise SessionLost("The session was ended while it was opened.")
        except SandboxError as exc:
            if not self.was_opened:
                given_up = exc.message
                raise
            self.begin_end("lost", exc.message)
        except Exception:
            if not self.was_opened:
                raise
            logger.exception("session %s", self.session_id)
            self.begin_end("lost", "an internal error of the controller; its log says more")
        finally:
            with anyio.CancelScope(shield=True):
                await self._tear_down(given_up)

    async def _live(self, task_status: TaskStatus[None]) -> None:
        async with one_error() as tasks:
            tasks.start_soon(self._cancel_at_end, tasks.cancel_scope)
            await self._bring_up(tasks)
            self.state = "open"
            self.was_opened = True
            self._record.opened()
            self._settled.set()
            task_status.started()

    async def _cancel_at_end(self, scope: anyio.CancelScope) -> None:
        await self._stop.wait()
        if self.was_opened and self._ending and self._ending[0] in ("closed", "expired"):
            await self._parts.save_last()
        scope.cancel()

    async def _bring_up(self, tasks: TaskGroup) -> None:
        is_new = not self.sandbox.is_adopted
        if is_new:  # before the container holds anything of its principal's
            self._services.journal.claimed(self.claim, self.lease.last_used)
        self._parts.run(tasks)
        if is_new and self._autosave is None and self._fill is None:
            tasks.start_soon(self._parts.start_first_kernel)
        await self.sandbox.claim(self._parts)
        if not self.sandbox.is_open:
            await self.sandbox.open(tasks, self._services.opening.place(Owner(self.principal)))
        tasks.start_soon(self.sandbox.wait_lost)
        if self._autosave is not None:
            if is_new:
                await self._autosave.restore()
            tasks.start_soon(self._autosave.run)
        if self._fill is not None:
            await self._fill(self)
        if is_new:
            tasks.start_soon(self._parts.start_first_kernel)  # unless it is there already
            self._services.journal.opened(self.session_id, self.info(with_proof=True))

    async def _tear_down(self, given_up: str) -> None:
        """Take everything down, a step at a time: what one step fails with spares no other one."""
        is_kept = self._services.keep and self._is_handed_over  # when the manager is cancelled
        fallback: tuple[Ending, str] = ("kept", "") if is_kept else ("closed", given_up)
        ending, reason = self._ending = self._ending or fallback
        journal, step = self._services.journal, partial(ending_step, self.session_id)
        self._settled.set()
        if ending == "kept":
            with step("its last use"):
                self.note_activity()
            with step("its kernels"):
                await self.kernels.aclose()
        else:
            info: SessionInfo | None = None
            with step("what it was"):
                info = self.info() if self.was_opened else None
            self.state = ending
            reason = self._why()
            with step("its kernels"):
                await self.kernels.aclose(lost=f"The session is {ending}: {reason}.")
            with step("its commands"):
                self.commands.lose(f"The session is {ending}: {reason}.")
            with step("its processor time"), anyio.move_on_after(METER_TIMEOUT_S):
                await self.meter()
            with step("its quotas"):
                self._services.quotas.usage.forget(self.session_id)
            with step("its sandbox"):
                if self.sandbox.claimant is self._parts:  # and not another session's
                    await self.sandbox.remove()
            with step("its end in the journal"):
                if self.was_opened:
                    now = self._services.clock()
                    journal.ended(self.session_id, ending, reason, info, now)
                else:
                    journal.not_opened(self.session_id)
        if self._autosave is not None:
            with step("its workspace"):
                self._autosave.close(is_kept=ending == "kept")
        with step("its end in the audit log"):
            self._record.ended(ending, reason, was_opened=self.was_opened)
        self._over.set()
