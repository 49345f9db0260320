"""One comparison of a container with its spec, and the error where it does not hold."""

from __future__ import annotations

import json
from typing import Any

from sandbox.errors import PolicyNotEnforced
from sandbox.values import Told

MAX_SHOWN = 300
"""Characters of what was expected and found."""


class Check(Told):
    """One comparison: what must be, what was found, and whether that is enough."""

    name: str
    expected: str
    found: str
    ok: bool


class NotProved(PolicyNotEnforced):
    """A proof failed: by what was measured inside, or else by the engine's inspection."""

    def __init__(
        self, message: str, checks: tuple[Check, ...], *, is_measured: bool, remedy: str
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.checks = checks
        self.is_measured = is_measured


def equal(name: str, expected: Any, found: Any) -> Check:
    return check(name, str(expected), str(found), ok=expected == found)


def none_but(name: str, accepted: set[str], found: Any) -> Check:
    extra = sorted(set(found) - accepted)
    return check(name, "no other", ", ".join(extra) or "no other", ok=not extra)


def check(name: str, expected: str, found: str, *, ok: bool) -> Check:
    return Check(name=name, expected=_bounded(expected), found=_bounded(found), ok=ok)


def shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
