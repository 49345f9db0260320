"""What a conversation leaves to the next one of its token.

Only within one token of one principal: another application of the same principal may do other
things, and gets nothing of it. What passes a session on is done without an await, so that of two
conversations that come at once one takes it over, once.
"""

from __future__ import annotations

from sandbox.errors import Conflict
from sandbox.sessions.conversations import Conversations
from sandbox.sessions.journal import Journal
from sandbox.sessions.models import Caller
from sandbox.sessions.notices import notice
from sandbox.sessions.ownership import Ownership, may_see
from sandbox.sessions.session import Session


class Inheritance:
    """Passes on the sessions of conversations that are over, or that nobody holds any more.

    Args:
        wait_s: How long a session is kept for the next conversation; 0: none is taken over.
    """

    def __init__(
        self,
        ownership: Ownership,
        journal: Journal,
        conversations: Conversations,
        wait_s: float,
    ) -> None:
        self._ownership = ownership
        self._journal = journal
        self._conversations = conversations
        self._wait_s = wait_s
        self._told: set[tuple[str, str]] = set()
        """The conversations that know of what earlier ones left, while there is something."""

    def is_left(self, session: Session) -> bool:
        """Whether the conversation whose default session it is is over."""
        return self._conversations.is_over(session.claim.default_key or "")

    def take_over(self, caller: Caller) -> Session | None:
        """Give a conversation without a default session the one that an earlier one left.

        It is the one that was used last, with what else its conversation had open. Where several
        are of before a restart nobody knows which of them is meant, and none is given.

        Raises:
            InfrastructureError: It cannot be noted, so nothing was changed.
        """
        left = self._left(caller)
        found = [session for session in left if not _is_of_before(session)]
        if not found and len(left) == 1:
            found = left
        if not found:
            return None
        session = found[0]
        self._pass_on(session, caller)
        return session

    async def inherit(self, caller: Caller) -> Session | None:
        """The same, ready for its caller, who is told of it; None for nothing.

        Raises:
            SessionLost: It has ended meanwhile.
            InfrastructureError: It cannot be noted, so nothing was changed.
        """
        session = self.take_over(caller)
        if session is not None:
            await session.ready()
            self.tell(session)
        return session

    def come_for(self, caller: Caller, session: Session) -> None:
        """Somebody names a session: if a conversation of the same token left it, it goes on with
        this one, unless that has a default session."""
        if self._ownership.default(caller) is None and session in self._left(caller):
            self._pass_on(session, caller)

    def tell(self, session: Session, whence: str = "an earlier one of your token left") -> None:
        """Tell a call which session it goes on with, when that is ready."""
        kernels = ", ".join(
            f"{each.kernel_id} ({each.name}, {each.state})" for each in session.kernels.infos
        )
        notice(
            f"this conversation goes on with session {session.session_id} (policy "
            f"{session.policy.name}), which {whence}: variables and files are kept; kernels: "
            f"{kernels or 'none'}. open_session(reuse=false) opens an empty one"
        )

    def tell_kept(self, session: Session) -> None:
        """Tell the first call since a controller took a default session back what it goes on
        with: its client may have begun anew in between."""
        if _is_of_before(session):
            self.tell(session, "was kept from before the controller's start")

    def tell_taken(self, caller: Caller) -> None:
        """Say once to a conversation that a newer one took its default session over.

        Raises:
            Conflict: One did, and this is the first time that this is said.
        """
        if session_id := self._conversations.tell_taken(caller.default_key):
            raise Conflict(
                f"Your default session {session_id} was taken over by a newer conversation of your "
                "token: this one held no stream open and was quiet. Nothing was done.",
                remedy="The next call without a session_id opens a new, empty session, and one "
                f"with session_id={session_id!r} shares that one. With the header "
                "Sandbox-Session: NAME of your own nobody else takes it over.",
            )

    def tell_left_behind(self, caller: Caller) -> None:
        """Say once to a conversation which default sessions of before a restart still run.

        Conversations of some clients end with their controller, and the next one would be given an
        empty session without a word. Where there are several, which is whose is not known.

        Raises:
            Conflict: There are such sessions, and this is the first time that this is said.
        """
        left = [session for session in self._left(caller) if _is_of_before(session)]
        if not left:
            self._told = {asks for asks in self._told if asks[0] != caller.principal}
        asks = (caller.principal, caller.default_key)
        if left and asks not in self._told:
            self._told.add(asks)
            which = ", ".join(f"{s.session_id} (policy {s.policy.name})" for s in left)
            raise Conflict(
                "The controller was started again, so this conversation is a new one. Of earlier "
                f"ones of yours, these default sessions still run: {which}. Nothing was done.",
                remedy="To go on with one, give its session_id in each call. The next call without "
                "a session_id opens a new, empty session.",
            )

    def tell_end(self, caller: Caller) -> None:
        """Tell a conversation that is about to begin anew how the session of an earlier one ended,
        unless a caller closed it or was told."""
        if not caller.line or not self._wait_s:
            return
        row = self._journal.latest_default_of(caller.principal, caller.line)
        if row is None or row.told or row.state not in ("expired", "lost"):
            return
        if may_see(caller, row):
            self._journal.told(row.session_id)
            notice(
                f"session {row.session_id}, which an earlier conversation of your token left, is "
                f"{row.state}: {row.reason}. This session is a new, empty one"
            )

    def _left(self, caller: Caller) -> list[Session]:
        """The default sessions that give way to a conversation, the one used last first."""
        if not caller.line or not self._wait_s:
            return []
        found = [
            session
            for session in self._ownership.mine(caller)
            if (key := session.claim.default_key or "").startswith(caller.line)
            and key != caller.default_key
            and (session.is_usable or (session.sandbox.is_adopted and not session.is_ending))
            and self._conversations.gives_way(key, caller.default_key)
        ]
        return sorted(found, key=lambda session: session.lease.last_used, reverse=True)

    def _pass_on(self, session: Session, caller: Caller) -> None:
        """Give all that a session's conversation had open to another conversation."""
        key = session.claim.default_key or ""
        for each in tuple(self._ownership.mine(caller)):
            if each.claim.opener_key == key and not each.is_ending:
                each.pass_on(caller.default_key)
        self._conversations.taken(key, session.session_id)


def _is_of_before(session: Session) -> bool:
    """Whether it was taken back from an earlier controller, and nobody has come for it since."""
    return session.sandbox.is_adopted and not session.lease.is_touched
