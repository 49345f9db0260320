"""The time-bounded right to a sandbox: until when, and since when it is not used."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from sandbox.policy import Limits


class Lease:
    """How long one session may go on, in Unix time.

    Args:
        activity: When what runs in it last did something.
        left_s: How long it is kept for another conversation when its own one is over.
    """

    def __init__(
        self,
        limits: Limits,
        expires_at: float,
        last_used: float,
        clock: Callable[[], float],
        activity: Callable[[], float],
        left_s: float = 0.0,
    ) -> None:
        self.expires_at = expires_at
        self.is_touched = False
        """Whether anybody has come for it since this controller has it."""
        self._limits = limits
        self.clock = clock
        self._activity = activity
        self._left_s = left_s
        self._left_at: float | None = None
        self._holds = 0
        self._used_at = self._noted = last_used

    @contextmanager
    def hold(self, *, counts: bool = True) -> Generator[None]:
        """It is used for the time of the block; ``counts``: and it was then."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if counts:
                self.touch()

    def touch(self) -> None:
        """Count this moment as use."""
        self.is_touched = True
        self._used_at = self.clock()

    def leave(self) -> None:
        """Its conversation is over: from now on it is kept for the next one, and no longer."""
        if self._left_at is None:
            self._left_at = self.clock()

    def pass_on(self) -> None:
        """Another conversation has taken it over."""
        self._left_at = None
        self.touch()

    @property
    def last_used(self) -> float:
        """Unix time at which it was last used; now, while it is in use."""
        return self.clock() if self._holds else max(self._used_at, self._activity())

    @property
    def idle_expires_at(self) -> float:
        """Unix time at which it is over unless it is used."""
        used, at = self.last_used, self.last_used + self._limits.idle_s
        if self._left_at is not None:
            at = min(at, max(used, self._left_at) + self._left_s)
        return min(at, self.expires_at)

    def expiry(self) -> str:
        """Why it is over now, in words; empty when it is not."""
        now = self.clock()
        if now >= self.expires_at:
            return f"its lifetime of {self._limits.lifetime_s:g} s was over"
        if now >= self.last_used + self._limits.idle_s:
            return f"it was not used for {self._limits.idle_s:g} s"
        if now >= self.idle_expires_at:
            return f"its conversation was over, and no other took it over within {self._left_s:g} s"
        return ""

    def note(self, write: Callable[[float], None]) -> None:
        """Write down when it was last used, if that changed since it was last written."""
        if (latest := self.last_used) > self._noted:
            write(latest)
            self._noted = latest
