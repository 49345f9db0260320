"""A new session: whether the caller may have it, and what it is to be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from sandbox.bulkheads.shares import FEW, open_to
from sandbox.config import Settings
from sandbox.container.labels import LABEL_SANDBOX
from sandbox.errors import InvalidRequest, NotPermitted, QuotaExceeded
from sandbox.policy import Policy
from sandbox.policy.units import format_duration
from sandbox.runtimes.base import EngineInfo
from sandbox.sessions.claims import AUTO, Claim, new_session_id
from sandbox.sessions.making import Maker
from sandbox.sessions.models import Caller
from sandbox.sessions.overcommit import missing, of_host, of_sessions
from sandbox.sessions.pool import Pool
from sandbox.sessions.quotas import USE_OR_CLOSE
from sandbox.sessions.services import SessionServices
from sandbox.sessions.session import Session
from sandbox.workspaces.autosave import check_fits
from sandbox.workspaces.holding import Held
from sandbox.workspaces.models import check_workspace

MAX_NAME = 64
MAX_TOLD = 8
"""Sessions that an error names."""


class Opener:
    """Makes sessions that are still to be run.

    Args:
        sessions: The sessions there are, those that are being opened or closed among them, by
            principal and id; a new one is entered here at once.
    """

    def __init__(
        self,
        services: SessionServices,
        settings: Settings,
        sessions: dict[tuple[str, str], Session],
        maker: Maker,
        pool: Pool,
    ) -> None:
        self._services = services
        self._settings = settings
        self._sessions = sessions
        self._maker = maker
        self._pool = pool

    async def session(
        self,
        caller: Caller,
        policy: Policy,
        name: str,
        workspace: str,
        *,
        as_default: bool,
        checkpoint: str = "",
        forked_from: str = "",
        fill: Callable[[Session], Awaitable[None]] | None = None,
        may_be_ready: bool = True,
    ) -> Session:
        """A new session, of a name and with a workspace unless these are empty.

        Args:
            may_be_ready: Whether it may have a sandbox that was made before it was asked for.
            forked_from: The id of the session that it is a fork of; empty for none.
            fill: Gives it what it begins with, before its caller has it.

        Raises:
            QuotaExceeded: The caller, or the controller, has as many sessions as may be, or the
                host has not what they may use.
            Conflict: Another session has the workspace.
            InvalidRequest: The workspace is too large for the policy.
            NotPermitted: The policy does not permit the runtime that the settings force, or it
                mounts what may not be mounted so.
            ConfigError: The policy mounts a root that the operator does not have, or a secret that
                it names is not there.
            PolicyNotEnforced: The engine has no runtime that the policy permits, or cannot enforce
                what a sandbox must have.
        """
        services = self._services
        services.audit.require()
        if workspace:
            await self.forget_dead_holder(caller.principal, workspace)
        around = await self._maker.surroundings(policy)
        # No await from the count to the entry: opens that come at once see each other.
        self._check_quota(caller, policy)
        self._check_host(policy, around.engine)
        secrets = services.secrets.for_policy(policy)
        if workspace:
            kept = services.workspaces.kept(caller.principal, workspace)
            check_fits(workspace, kept, policy.workspace)
        ready = self._pool.take(policy, around) if may_be_ready else None
        if ready is None:  # one that is ready has its memory already
            self._check_memory(around.engine)
        sandbox = ready or self._maker.sandbox(policy, around)
        now = services.clock()
        claim = Claim(
            session_id=new_session_id(),
            principal=caller.principal,
            sandbox_id=sandbox.identity.sandbox_id,
            uid=sandbox.identity.uid,
            policy_digest=policy.digest,
            name=name,
            opener_key=caller.default_key,
            default_key=caller.default_key if as_default else None,
            workspace=workspace,
            checkpoint=checkpoint or (AUTO if policy.checkpoint == AUTO else ""),
            created_at=now,
            expires_at=now + policy.limits.lifetime_s,
            forked_from=forked_from,
        )
        held: Held | None = None
        try:
            if workspace:
                held = services.workspaces.take(caller.principal, workspace, claim.holder)
        except BaseException:
            if ready is not None:
                self._pool.discard(ready)
            raise
        session = Session(
            claim,
            sandbox,
            services,
            secrets=secrets,
            last_used=now,
            certificates=around.given.certificates,
            workspace=held,
            fill=fill,
        )
        self._sessions[caller.principal, claim.session_id] = session
        return session

    def keep_checkpoints(self, session: Session, checkpoint: str) -> None:
        """Have an open session make a checkpoint before each cell from now on, if that is asked
        for.

        Raises:
            InfrastructureError: It cannot be noted, so nothing was changed.
        """
        if checkpoint and session.claim.checkpoint != checkpoint:
            self._services.journal.checkpoints(session.session_id, checkpoint)
            session.claim = replace(session.claim, checkpoint=checkpoint)
            session.kernels.branches.is_auto = checkpoint == AUTO

    def withdraw(self, session: Session) -> None:
        """Forget a session that was never run, or is over."""
        self._sessions.pop((session.principal, session.session_id), None)
        if session.sandbox.is_open and session.sandbox.claimant is None:
            self._pool.discard(session.sandbox)

    async def forget_dead_holder(self, principal: str, workspace: str) -> None:
        """Free a workspace whose session is gone; the engine knows which sandboxes there are.

        Raises:
            Conflict: A controller has it.
        """
        holder = self._services.workspaces.holder(principal, workspace)
        session_id, _, sandbox_id = holder.partition(" ")
        session = self._sessions.get((principal, session_id))
        if session is not None and session.is_ending:
            await session.wait_over()  # it is being saved
        elif holder and not (
            sandbox_id and await self._services.runtime.list({LABEL_SANDBOX: sandbox_id})
        ):
            self._services.workspaces.forget(principal, workspace, holder)

    def _check_quota(self, caller: Caller, policy: Policy) -> None:
        others, now = self._sessions.values(), self._services.clock()
        mine = [session for session in others if session.principal == caller.principal]
        self._services.quotas.admit_session(
            caller.principal, len(mine), _in_words(caller, mine, now)
        )
        same = [session for session in mine if session.policy.name == policy.name]
        limit = policy.limits.sessions_per_principal
        if len(same) >= limit:
            raise QuotaExceeded(
                f"You have {len(same)} sessions of the policy {policy.name!r}, and may have "
                f"{limit}{_in_words(caller, same, now)}.",
                remedy=USE_OR_CLOSE,
            )
        limit = self._settings.max_sessions
        if len(others) >= open_to(len(mine), limit):
            raise QuotaExceeded(
                f"The controller has {len(others)} sessions of the {limit} that it may have, and "
                f"the last of them are for callers with fewer than {FEW}."
                if len(others) < limit
                else f"The controller has as many sessions as it may have ({limit}).",
                remedy="Try again when some have ended, or raise max_sessions."
                + (f" You have {len(mine)}{_in_words(caller, mine, now)}." if mine else ""),
            )

    def _check_memory(self, engine: EngineInfo) -> None:
        now, others = self._services.clock(), self._sessions.values()
        coming = sum(session.state == "opening" for session in others)
        ends_in_s = (session.lease.idle_expires_at - now for session in others)
        self._services.capacity.check(engine, coming, ends_in_s)

    def _check_host(self, policy: Policy, engine: EngineInfo) -> None:
        if self._settings.overcommit != "refuse":
            return
        wanted = of_sessions([policy, *(session.policy for session in self._sessions.values())])
        if short := missing(of_host(engine), wanted):
            raise QuotaExceeded(
                f"With this session there would be promised {'; '.join(short)}.",
                remedy="Try again when some sessions have ended, or under a smaller policy.",
            )


def _in_words(caller: Caller, sessions: Sequence[Session], now: float) -> str:
    """Which sessions a caller has, the one used last first, for the end of a sentence."""
    shown = sorted(
        (session for session in sessions if caller.may_use(session.policy.name)),
        key=lambda session: session.lease.last_used,
        reverse=True,
    )
    lines = [
        f"{session.session_id} ({_facts(caller, session, now)})" for session in shown[:MAX_TOLD]
    ]
    if more := len(sessions) - len(lines):
        lines.append(f"{more} more")
    return f": {'; '.join(lines)}"


def _facts(caller: Caller, session: Session, now: float) -> str:
    claim, used_s = session.claim, max(now - session.lease.last_used, 0)
    facts = [f"policy {session.policy.name}"]
    if claim.name:
        facts.append(f"named {claim.name!r}")
    if claim.default_key is not None:
        whose = "this" if claim.default_key == caller.default_key else "another"
        facts.append(f"the default one of {whose} conversation")
    facts.append(f"opened {format_duration(int(max(now - claim.created_at, 0)))} ago")
    facts.append(f"last used {format_duration(int(used_s))} ago")
    if session.is_ending:
        facts.append("ending")
    return ", ".join(facts)


def check_wanted(policy: Policy, name: str, workspace: str, checkpoint: str) -> None:
    """Refuse what no session under a policy can be.

    Raises:
        InvalidRequest: That cannot be the name of a session or a workspace.
        NotPermitted: The policy keeps no files, or no checkpoints before cells.
    """
    check_name(name)
    if workspace:
        _check_keeps(policy, workspace)
    if checkpoint:
        _check_checkpoints(policy)


def check_name(name: str) -> None:
    if len(name) > MAX_NAME or not name.isprintable():
        raise InvalidRequest(
            f"A session's name has at most {MAX_NAME} printable characters.",
            remedy="Choose a shorter name, or none.",
        )


def _check_checkpoints(policy: Policy) -> None:
    if not policy.keeps_checkpoints:
        raise NotPermitted(
            f"The policy {policy.name!r} keeps no checkpoints before cells.",
            remedy="Leave `checkpoint` out, or name a policy with some limits.auto_checkpoints.",
        )


def _check_keeps(policy: Policy, workspace: str) -> None:
    check_workspace(workspace)
    if not policy.workspace.persistent:
        raise NotPermitted(
            f"The policy {policy.name!r} keeps no files: a session under it has no named "
            "workspace.",
            remedy="Leave the workspace out, or name a policy with workspace: {persistent: true}.",
        )
