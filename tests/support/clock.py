"""A clock that a test moves."""

from __future__ import annotations


class Clock:
    """Says what it was set to.

    Args:
        now: The time, in seconds.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
