"""How much goes through one session's gateway, and the limits on it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from sandbox.policy.network import NetworkLimits
from sandbox.policy.units import format_size

MINUTE_S = 60.0

Charge = Callable[[int], str]
"""Called with the bytes that are about to pass; says why they may not, or nothing."""


class OverLimit(Exception):
    """A limit is reached: its name in a policy, or whose it is, and what it says in words."""

    def __init__(self, limit: str, reason: str) -> None:
        super().__init__(reason)
        self.limit = limit
        self.reason = reason


class Meter:
    """Counts the connections and bytes of one session."""

    def __init__(
        self,
        limits: NetworkLimits,
        charge: Charge,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._charge = charge
        self._clock = clock
        self._recent: deque[float] = deque()
        self.open = 0
        """Connections at this moment."""
        self.connections = 0
        """Connections that were let out, in all."""
        self.sent_bytes = 0
        self.received_bytes = 0

    def begin(self) -> None:
        """Count a new connection as open; :meth:`end` takes it back.

        Raises:
            OverLimit: Too many are open, or too many came within a minute. It counts all the same.
        """
        self.open += 1
        now = self._clock()
        while self._recent and self._recent[0] <= now - MINUTE_S:
            self._recent.popleft()
        if self.open > self._limits.connections:
            raise OverLimit(
                "connections", f"{self._limits.connections} connections are open, which is the most"
            )
        if len(self._recent) >= self._limits.rate_per_minute:
            raise OverLimit(
                "rate", f"{self._limits.rate_per_minute} connections a minute are the most"
            )
        self._recent.append(now)

    def end(self) -> None:
        """Count a connection as closed."""
        self.open -= 1

    def sent(self, size: int) -> None:
        """Count bytes on their way out.

        Raises:
            OverLimit: They may not pass.
        """
        self._pass(size)
        self.sent_bytes += size

    def received(self, size: int) -> None:
        """Count bytes on their way in.

        Raises:
            OverLimit: They may not pass.
        """
        self._pass(size)
        self.received_bytes += size

    def _pass(self, size: int) -> None:
        limit = self._limits.total_bytes
        if self.sent_bytes + self.received_bytes + size > limit:
            raise OverLimit("bytes", f"{format_size(limit)} of the session are used up")
        if refused := self._charge(size):
            raise OverLimit("quota", refused)
