"""A new session: whether the caller may have it, and what it is to be."""

from __future__ import annotations

from collections.abc import Callable, Collection

from sandbox.config import Settings
from sandbox.egress import Outfit
from sandbox.errors import QuotaExceeded
from sandbox.mounts import sources
from sandbox.policy import Policy
from sandbox.runtimes.base import EngineInfo
from sandbox.sessions.birth import Birth, Surroundings
from sandbox.sessions.keeping import check_fits
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session
from sandbox.spec import SessionIdentity, compile_spec, new_session_id, new_uid
from sandbox.workspaces import Held


class Opener:
    """Makes sessions that are still to be run.

    Args:
        around: What all sessions share.
        settings: ``runtime`` and ``max_sessions`` are read here.
        owner: The id that labels this controller's containers.
        image_for: The engine's reference of an image that a policy names.
        seccomp: The seccomp profile as JSON.
        keep: Whether sessions outlive this controller.
    """

    def __init__(
        self,
        around: Surroundings,
        settings: Settings,
        *,
        owner: str,
        image_for: Callable[[str], str],
        seccomp: str,
        keep: bool,
    ) -> None:
        self._around = around
        self._settings = settings
        self._owner = owner
        self._image_for = image_for
        self._seccomp = seccomp
        self._keep = keep

    def session(
        self,
        caller: Caller,
        policy: Policy,
        name: str,
        engine: EngineInfo,
        given: Outfit,
        others: Collection[Session],
        *,
        as_default: bool,
        workspace: str = "",
    ) -> Session:
        """A new session.

        Args:
            caller: Whose it is.
            policy: What it may.
            name: As the caller names it; empty for none.
            engine: Where its container will be.
            given: What it is given to find its way out.
            others: The sessions there are, those that are being opened or closed among them.
            as_default: Whether it becomes the caller's default session.
            workspace: The workspace that it is to have; empty for none.

        Raises:
            QuotaExceeded: The caller, or the controller, has as many sessions as may be.
            Conflict: Another session has the workspace.
            InvalidRequest: The workspace is too large for the policy.
            NotPermitted: The policy does not permit the runtime that the settings force, or it
                mounts what may not be mounted so.
            ConfigError: The policy mounts a root that the operator does not have.
            PolicyNotEnforced: The engine has no runtime that the policy permits.
            ConfigError: A secret that the policy names is not there.
        """
        self._check_quota(caller, policy, others)
        secrets = self._around.secrets.for_policy(policy)
        now = self._around.clock()
        identity = SessionIdentity(
            session_id=new_session_id(),
            principal=caller.principal,
            owner=self._owner,
            uid=_unused_uid(others),
            created_at=now,
            expires_at=now + policy.limits.lifetime_s,
            workspace=workspace,
        )
        spec = compile_spec(
            policy,
            identity,
            image=self._image_for(policy.image),
            runtimes=engine.runtimes,
            seccomp=self._seccomp,
            mounts=sources(policy, self._around.roots, engine.data_root),
            runtime_override=self._settings.runtime or None,
            cpus_available=engine.cpus,
            variables=given.variables,
        )
        held: Held | None = None
        if workspace:
            store = self._around.workspaces
            check_fits(workspace, store.kept(caller.principal, workspace), policy.workspace)
            held = store.take(caller.principal, workspace, identity.session_id)
        birth = Birth(
            identity=identity,
            policy=policy,
            spec=spec,
            name=name,
            opener_key=caller.default_key,
            default_key=caller.default_key if as_default else None,
            last_activity=now,
            certificates=given.certificates,
            secrets=secrets,
            workspace=held,
        )
        return Session(birth, self._around, keep=self._keep)

    def _check_quota(self, caller: Caller, policy: Policy, others: Collection[Session]) -> None:
        mine = [session for session in others if session.principal == caller.principal]
        self._around.quotas.admit_session(caller.principal, len(mine))
        count = sum(1 for session in mine if session.policy.name == policy.name)
        limit = policy.limits.sessions_per_principal
        if count >= limit:
            raise QuotaExceeded(
                f"You have {count} sessions of the policy {policy.name!r}, and may have {limit}.",
                remedy="Close one with close_session, or use one that list_sessions shows.",
            )
        limit = self._settings.max_sessions
        if len(others) >= limit:
            raise QuotaExceeded(
                f"The controller has as many sessions as it may have ({limit}).",
                remedy="Try again when some have ended, or raise max_sessions.",
            )


def _unused_uid(others: Collection[Session]) -> int:
    taken = {session.uid for session in others}
    while (uid := new_uid()) in taken:
        pass
    return uid
