"""What the network policy of a session refused, in the order in which it happened.

A denial is told in the result of the call that caused it, so that whoever reads that result learns
which rule decided and what to do. Calls that run at the same time in one session share theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pydantic import BaseModel, Field

MAX_KEPT = 256
MAX_TOLD = 20
UNREACHABLE = "unreachable"
"""The rule of what was allowed and could not be reached: no refusal, but the caller must know."""


class Denial(BaseModel, frozen=True):
    """One connection, or several alike, that the network policy refused or cut."""

    host: str
    """As the client named it, made safe to show."""
    port: int
    """0 when the request was too malformed to have one."""
    rule: str
    """What decided: a rule of the policy, or a built-in one."""
    reason: str
    remedy: str
    """What to do about it; empty when nothing can be done."""
    times: int = Field(default=1, ge=1)
    """How often it happened."""


class DenialLog:
    """The latest denials of one session."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, Denial]] = deque(maxlen=MAX_KEPT)
        self._next = 0

    def mark(self) -> int:
        """This moment, for :meth:`since`."""
        return self._next

    def add(self, denial: Denial) -> None:
        """Take a denial."""
        self._kept.append((self._next, denial))
        self._next += 1

    def since(self, mark: int = 0) -> tuple[Denial, ...]:
        """The denials after a moment, those alike as one, the latest ``MAX_TOLD`` of them."""
        return joined(denial for number, denial in self._kept if number >= mark)


def joined(denials: Iterable[Denial]) -> tuple[Denial, ...]:
    """Denials with those alike made one, the latest ``MAX_TOLD`` of them."""
    found: dict[Denial, int] = {}
    for denial in denials:
        alike = denial.model_copy(update={"times": 1})
        found[alike] = found.pop(alike, 0) + denial.times
    told = list(found.items())[-MAX_TOLD:]
    return tuple(alike.model_copy(update={"times": times}) for alike, times in told)


def denial_line(denial: Denial) -> str:
    """A denial in one line for a reader."""
    how = "not reached" if denial.rule == UNREACHABLE else f"denied by {denial.rule}"
    times = f", {denial.times} times" if denial.times > 1 else ""
    remedy = f" {denial.remedy}" if denial.remedy else ""
    return f"network: {denial.host}:{denial.port} {how}{times}: {denial.reason}.{remedy}"
