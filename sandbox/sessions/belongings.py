"""Which sessions are whose, open ones and those that have ended.

Everything is looked up by principal and id, and what a caller may not see is answered like what is
not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sandbox.errors import NotFound
from sandbox.link import printable
from sandbox.policy import Policy
from sandbox.sessions.endings import ended_error
from sandbox.sessions.journal import Journal, SessionRow
from sandbox.sessions.models import Caller, SessionInfo
from sandbox.sessions.session import Session


class Belongings:
    """What belongs to each caller.

    Args:
        sessions: The sessions there are now, by principal and id.
        journal: Knows those that have ended.
    """

    def __init__(self, sessions: Mapping[tuple[str, str], Session], journal: Journal) -> None:
        self._sessions = sessions
        self._journal = journal

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
        mine = (s for s in self.mine(caller) if s.default_key == caller.default_key)
        return min(mine, key=lambda session: session.is_ending, default=None)

    def reusable(self, caller: Caller, policy: Policy, name: str, workspace: str) -> Session | None:
        """The best open session that an ``open`` of this policy may return."""
        fitting = [
            session
            for session in self.mine(caller)
            if session.is_usable
            and session.name == name
            and session.workspace_name == workspace
            and (name or workspace or session.opener_key == caller.default_key)
            and session.policy.digest == policy.digest
        ]
        return max(
            fitting, key=lambda s: (s.default_key is not None, s.last_activity), default=None
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
