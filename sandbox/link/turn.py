"""A session's share of the event loop, by time.

Whatever is done for a session on what came over its link is counted here, by all of its pumps
together; each of them rests while the session has worked more than its share: as long as it has
worked. Who is alone on the loop rests only after a piece of work that took long in itself, for
then callers may wait.

Standard library only: both ends of a link share this module, which is copied into the images.
"""

from __future__ import annotations

import asyncio
from time import perf_counter, thread_time
from typing import ClassVar

TURN_S = 0.01
"""A session may work so long, beyond half of the time, before it rests."""
ALONE_S = 1.0
"""Who has seen nobody else work for so long is alone."""

Mark = tuple[int, float]


class Turn:
    """Counts what is done for one session."""

    _latest: ClassVar[tuple[Turn | None, float]] = (None, 0.0)
    """Who worked last, and when."""
    _before: ClassVar[float] = 0.0
    """When somebody else than the one who worked last did."""

    def __init__(self) -> None:
        self._paid_at = 0.0
        """When it has rested as long as it has worked, if it does nothing more."""
        self._is_long = False
        """Whether one piece of work since the last rest was long in itself."""
        self._round = 0
        self._is_round_seen = False

    def charge(self, seconds: float) -> None:
        """Count work that has just been done, in processor time of this thread."""
        now = perf_counter()
        self._paid_at = max(self._paid_at, now - seconds) + 2 * seconds
        self._is_long |= seconds > TURN_S
        latest, at = Turn._latest
        if latest is not self:
            Turn._before = at
        Turn._latest = (self, now)

    async def rest(self) -> None:
        """Wait while more was done than the session's share; returns at once when it was not."""
        while (owed_s := self._paid_at - perf_counter()) > TURN_S:
            if not self._is_long and self._is_alone():
                self._paid_at = 0.0
                owed_s = 0.0
            await asyncio.sleep(owed_s)
        self._is_long = False

    def mark(self) -> Mark:
        """The present moment, for :meth:`charge_since`."""
        if not self._is_round_seen:
            self._is_round_seen = True
            asyncio.get_running_loop().call_soon(self._next_round)
        return self._round, thread_time()

    def charge_since(self, mark: Mark) -> None:
        """Count the time since a moment, unless the event loop has turned meanwhile.

        If it has, others may have worked in that time.
        """
        if mark[0] == self._round:
            self.charge(thread_time() - mark[1])

    def _next_round(self) -> None:
        self._round += 1
        self._is_round_seen = False

    def _is_alone(self) -> bool:
        latest, at = Turn._latest
        others_at = Turn._before if latest is self else at
        return perf_counter() - others_at > ALONE_S
