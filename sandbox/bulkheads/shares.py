"""Places of something that all sessions share: so many in all, for one principal, for one session.

Who has used up its share waits or is refused; others are not held up by that. The last quarter of
all places is kept for principals that have few, so that some who fill theirs leave room for others.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

FEW = 4
"""Places that a principal may have in the last quarter."""


def open_to(held: int, in_all: int) -> int:
    """How many of all places may be taken for one more to go to a principal that holds so many."""
    return in_all - (in_all // 4 if held >= FEW else 0)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has a place; without a session where that is not known."""

    principal: str
    session_id: str = ""


class Shares:
    """Places, each held by a session of a principal. Used in one event loop."""

    def __init__(self, what: str, in_all: int, of_principal: int, of_session: int) -> None:
        self.what = what
        self.in_all = in_all
        self.of_principal = min(of_principal, in_all)
        self.of_session = min(of_session, in_all)
        self._principals: Counter[str] = Counter()
        self._sessions: Counter[Owner] = Counter()
        self.taken = 0
        self._waiting: deque[tuple[Owner, asyncio.Future[None]]] = deque()

    def objection(self, owner: Owner) -> str:
        """Why somebody cannot have another place now, in words; empty when it can."""
        if self._sessions[owner] >= self.of_session:
            return f"this session has {self.of_session} {self.what}, which is its share"
        held = self._principals[owner.principal]
        if held >= self.of_principal:
            return f"your sessions have {held} {self.what} together, which is your share"
        if self.taken >= open_to(held, self.in_all):
            return f"the sessions of all callers have {self.taken} {self.what}, which is the most"
        return ""

    def take(self, owner: Owner) -> str:
        """Take a place, which :meth:`give` gives back; why there is none, else empty."""
        if not (why := self.objection(owner)):
            self.taken += 1
            self._principals[owner.principal] += 1
            self._sessions[owner] += 1
        return why

    async def wait(self, owner: Owner) -> None:
        """Take a place as soon as there is one; the caller sees to the time."""
        if not self.take(owner):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(owner)
            raise
        finally:
            if (owner, turn) in self._waiting:
                self._waiting.remove((owner, turn))

    @asynccontextmanager
    async def place(self, owner: Owner) -> AsyncGenerator[None]:
        """Have a place for the time of a block, as soon as there is one."""
        await self.wait(owner)
        try:
            yield
        finally:
            self.give(owner)

    def give(self, owner: Owner) -> None:
        """Give a place back; of the principals that have fewest, who has waited longest gets it."""
        self.taken -= 1
        self._principals = self._principals - Counter([owner.principal])  # without those at 0
        self._sessions = self._sessions - Counter([owner])
        for waiting in sorted(self._waiting, key=lambda each: self._principals[each[0].principal]):
            whose, turn = waiting
            if not turn.done() and not self.take(whose):
                self._waiting.remove(waiting)
                turn.set_result(None)
                return
