"""Runtimes under which a sandbox was less than its policy says, and what is taken instead of them.

A policy that prefers one runtime and permits another is held by the other then, which is proved
like any. Where all that it permits were refused, the preferred one says once more why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile

from sandbox.policy import Policy
from sandbox.runtimes.base import EngineInfo

FOR_S = 3600.0
"""A runtime is passed over for so long, then tried again: it may have been replaced."""
MAX_REASON = 400


class Refusals:
    """What was refused by one controller, by policy digest and runtime."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: dict[tuple[str, str], tuple[str, float]] = {}
        """Why, and until when."""

    def note(self, policy: Policy, runtime: str, reason: str) -> None:
        """A runtime did not hold a policy."""
        words = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}…"
        self._refused[policy.digest, runtime] = (words, self._clock() + FOR_S)

    def reason(self, policy: Policy, runtime: str) -> str:
        """Why a runtime is passed over; empty when it is not."""
        why, until = self._refused.get((policy.digest, runtime), ("", 0.0))
        if why and self._clock() >= until:
            del self._refused[policy.digest, runtime]
            return ""
        return why

    def rest(self, policy: Policy, engine: EngineInfo) -> EngineInfo:
        """The engine without the runtimes that are passed over, if others are left that will do."""
        left = tuple(each for each in engine.runtimes if not self.reason(policy, each))
        return replace(engine, runtimes=left) if set(left) & set(policy.runtimes) else engine

    def told(self, policy: Policy, runtime: str) -> str:
        """What to tell a caller who gets this runtime; empty when none before it was refused."""
        preferred = takewhile(lambda name: name != runtime, policy.runtimes)
        refused = [(name, why) for name in preferred if (why := self.reason(policy, name))]
        return " ".join(
            f"The policy {policy.name!r} prefers the runtime {name}, which was refused here, so "
            f"this session has {runtime}. {why}"
            for name, why in refused
        )
