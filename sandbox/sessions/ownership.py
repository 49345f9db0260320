"""Which sessions are whose, open ones and those that have ended.

Everything is looked up by principal and id, and what a caller may not see is answered like what is
not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TypeVar

from sandbox.commands.command import Command
from sandbox.commands.models import CommandResult
from sandbox.errors import NotFound, NotPermitted, SandboxError
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.link.link import printable
from sandbox.policy import Policy, PolicySet
from sandbox.sessions.endings import ended_error
from sandbox.sessions.journal import Journal, SessionRow
from sandbox.sessions.models import Caller, SessionInfo
from sandbox.sessions.session import Session

_Live = TypeVar("_Live")
_Kept = TypeVar("_Kept")


class Ownership:
    """What belongs to each caller."""

    def __init__(
        self, sessions: Mapping[tuple[str, str], Session], journal: Journal, policies: PolicySet
    ) -> None:
        self._sessions = sessions
        self._journal = journal
        self.policies = policies

    def mine(self, caller: Caller) -> Iterator[Session]:
        """The caller's sessions, whatever their state."""
        return (
            session
            for session in self._sessions.values()
            if session.principal == caller.principal and caller.may_use(session.policy.name)
        )

    def of(self, caller: Caller, session_id: str) -> Session | None:
        """The caller's session of that id; None for a foreign one as for an absent one."""
        session = self._sessions.get((caller.principal, session_id))
        return session if session is not None and caller.may_use(session.policy.name) else None

    def default(self, caller: Caller) -> Session | None:
        """The caller's default session; one that is ending only if there is no other."""
        mine = (s for s in self.mine(caller) if s.claim.default_key == caller.default_key)
        return min(mine, key=lambda session: session.is_ending, default=None)

    def reusable(self, caller: Caller, policy: Policy, name: str, workspace: str) -> Session | None:
        """The best open session that an ``open`` of this policy may return."""
        fitting = [
            session
            for session in self.mine(caller)
            if session.is_usable
            and session.claim.name == name
            and session.claim.workspace == workspace
            and (name or workspace or session.claim.opener_key == caller.default_key)
            and (name or not session.claim.forked_from)
            and session.policy.digest == policy.digest
        ]
        return max(
            fitting,
            key=lambda s: (s.claim.default_key is not None, s.lease.last_used),
            default=None,
        )

    def find(self, caller: Caller, session_id: str) -> Session:
        """The caller's session of that id.

        Raises:
            NotFound: There is none; a foreign one looks the same as an absent one.
            SessionLost: It has ended.
        """
        session = self.of(caller, session_id)
        if session is not None:
            return session
        row = self.ended(caller, session_id)
        raise ended_error(row.session_id, row.state, row.reason)

    def ended(self, caller: Caller, session_id: str) -> SessionRow:
        """The caller's session that has ended.

        Raises:
            NotFound: There is none; a foreign one looks the same as an absent one.
        """
        row = self._journal.session(caller.principal, session_id)
        if row is None or row.ended_at is None or not may_see(caller, row):
            raise NotFound(
                f"You have no session {printable(session_id, 80)!r}.",
                remedy="list_sessions shows those you have; an empty session_id means your "
                "default one.",
            )
        return row

    def info(self, caller: Caller, session_id: str) -> SessionInfo:
        """What one of the caller's sessions is, or was; without an id the default one.

        Raises:
            NotFound: There is none.
        """
        session = self.of(caller, session_id) if session_id else self.default(caller)
        if session is not None:
            return session.info()
        if not session_id:
            raise NotFound("You have no default session open.")
        return ended_info(self.ended(caller, session_id))

    def tell_end(self, caller: Caller) -> None:
        """Say once that the caller's default session has ended, unless the caller closed it.

        Raises:
            SessionLost: It has, and this is the first time it is asked for since.
        """
        row = self._journal.latest_default(caller.principal, caller.default_key)
        if row is None or row.told or row.state not in ("expired", "lost"):
            return
        if not may_see(caller, row):
            return
        self._journal.told(row.session_id)
        raise ended_error(row.session_id, row.state, row.reason, is_default=True)

    def policy(self, caller: Caller, name: str) -> Policy:
        """The policy that a caller asks for; an empty name is the caller's default.

        Raises:
            NotFound: There is no such policy.
            NotPermitted: The caller may not name it, whether there is one or not.
        """
        if caller.policies is not None and not name and not caller.may_use(self.policies.default):
            name = caller.policies[0] if caller.policies else name
        if not caller.may_use(name or self.policies.default):
            raise NotPermitted(
                f"Your token may not name the policy {printable(name, 80)!r}.",
                remedy=f"It may name: {', '.join(caller.policies or ()) or 'none'}.",
            )
        return self.policies.get(name)

    def policy_of(self, caller: Caller, session_id: str) -> Policy:
        """The policy of one of the caller's sessions, also of one that has ended.

        Raises:
            NotFound: The caller has no such session.
            NotPermitted: It has ended, and the policy is no longer as it was then.
        """
        session = self.of(caller, session_id)
        if session is not None:
            return session.policy
        was = ended_info(self.ended(caller, session_id))
        with suppress(SandboxError):
            policy = self.policies.get(was.policy)
            if policy.digest == was.policy_digest:
                return policy
        raise NotPermitted(
            f"The policy {was.policy!r} has changed since this session ended, so what it allowed "
            "is no longer known."
        )

    def may_ask(self, caller: Caller) -> bool:
        """Whether a call of this caller's can come to a question for a person."""
        policies = [session.policy for session in self.mine(caller)]
        with suppress(SandboxError):
            policies.append(self.policies.get(""))
        return any(policy.asks for policy in policies)

    async def execution(self, caller: Caller, execution_id: str) -> Execution | ExecutionResult:
        """An execution of one of the caller's sessions, also some time after the session's end.

        Returns:
            The execution to wait for, or how it ended if its session, or the controller that ran
            it, has ended since.

        Raises:
            NotFound: The caller has no such execution, or it ended too long ago.
        """
        return await self._result(
            caller,
            f"execution {printable(execution_id, 80)!r}",
            lambda session: session.kernels.execution(execution_id),
            self._journal.session_of(caller.principal, execution_id),
            lambda session_id: self._journal.executions.result(session_id, execution_id),
        )

    async def command(self, caller: Caller, command_id: str) -> Command | CommandResult:
        """The same for a command.

        Raises:
            NotFound: The caller has no such command, or it ended too long ago.
        """
        table = self._journal.commands
        return await self._result(
            caller,
            f"command {printable(command_id, 80)!r}",
            lambda session: session.commands.command(command_id),
            self._journal.session(caller.principal, table.session_of(command_id)),
            lambda session_id: table.result(session_id, command_id),
        )

    async def _result(
        self,
        caller: Caller,
        what: str,
        live: Callable[[Session], _Live],
        row: SessionRow | None,
        kept: Callable[[str], _Kept | None],
    ) -> _Live | _Kept:
        """What ran in one of the caller's sessions: as a session has it, or else the journal."""
        for session in tuple(self.mine(caller)):
            if session.is_usable:
                with suppress(NotFound):
                    return live(session)
        if row is not None and may_see(caller, row):
            session = self.of(caller, row.session_id)
            if session is not None and not session.is_ending:  # it is being taken back
                await session.ready()
                return live(session)
            if (result := kept(row.session_id)) is not None:
                return result
        raise NotFound(
            f"There is no {what} of yours.",
            remedy="Results are kept for a day after their session's end.",
        )


def may_see(caller: Caller, row: SessionRow) -> bool:
    """Whether a session of the caller's principal was under a policy that the caller may use."""
    if caller.policies is None:
        return True
    try:
        return caller.may_use(SessionInfo.model_validate_json(row.info).policy)
    except ValueError:  # it never opened, or its labels were all there was
        return False


def ended_info(row: SessionRow) -> SessionInfo:
    """What a session was when it ended.

    Raises:
        SessionLost: Nothing but its end is known.
    """
    try:
        info = SessionInfo.model_validate_json(row.info)
    except ValueError as exc:
        raise ended_error(row.session_id, row.state, row.reason) from exc
    return info.model_copy(update={"state": row.state, "kernels": ()})
