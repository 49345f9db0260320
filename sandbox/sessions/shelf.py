"""The part of the pool that is one policy's: what is ready, and how much is wanted. Pure."""

from __future__ import annotations

import math
from collections import deque

from sandbox.container.sandbox import Sandbox
from sandbox.policy import Policy
from sandbox.sessions.poolinfo import ShelfInfo

FORGET_HALF_S = 120.0
"""What was asked for counts half after so long."""


class Shelf:
    """Sandboxes of one policy that wait, the one that waits longest first."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.ready: deque[Sandbox] = deque()
        self.coming = 0
        """How many are being made."""
        self.given = 0
        """How many sessions have got one."""
        self.missed = 0
        """How many found none."""
        self.problem = ""
        """Why the last one that was to be made came to nothing; empty when it did not."""
        self.again_at = 0.0
        """Monotonic time before which no other is made, seconds."""
        self._failures = 0
        self._demand = 0.0
        self._asked_at = 0.0

    @property
    def there(self) -> int:
        """How many are ready or being made."""
        return len(self.ready) + self.coming

    def asked(self, now: float) -> None:
        """Note that somebody wants one, at a monotonic time."""
        self._demand = self._demanded(now) + 1
        self._asked_at = now

    def target(self, now: float) -> int:
        """How many there should be."""
        pool = self.policy.pool
        return min(pool.max, max(pool.min, math.floor(self._demanded(now) + 0.5)))

    def is_low(self, now: float) -> bool:
        """Whether less than a quarter of what there should be is ready."""
        return 4 * len(self.ready) < self.target(now)

    def made(self, sandbox: Sandbox) -> None:
        """Put one up that is ready."""
        self.ready.append(sandbox)
        self.problem, self._failures = "", 0

    def failed(self, why: str, now: float, longest_s: float) -> None:
        """Note that one could not be made, or was lost while it waited: the next follows later."""
        self._failures += 1
        self.problem = why
        self.again_at = now + min(2.0 ** (self._failures - 1), longest_s)

    def info(self, now: float) -> ShelfInfo:
        """What there is to tell of it."""
        pool = self.policy.pool
        return ShelfInfo(
            policy=self.policy.name,
            policy_digest=self.policy.digest,
            min=pool.min,
            max=pool.max,
            target=self.target(now),
            ready=len(self.ready),
            coming=self.coming,
            given=self.given,
            missed=self.missed,
            problem=self.problem,
        )

    def _demanded(self, now: float) -> float:
        return self._demand * 0.5 ** ((now - self._asked_at) / FORGET_HALF_S)
