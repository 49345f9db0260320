"""The one error of a task group that a caller should hear of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from sandbox.errors import EngineUnavailable, LinkLost, PolicyNotEnforced, SandboxError, SessionLost

_TELLING = (PolicyNotEnforced, SessionLost, EngineUnavailable)


def leading_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of a group that says most.

    A defect of ours comes first, so that it is not hidden; then what explains the others: a lost
    link is most often the effect, not the cause.
    """
    leaves = list(_leaves(group))
    return min(leaves, key=_rank)


def _rank(exc: BaseException) -> int:
    if not isinstance(exc, SandboxError):
        return 0
    for place, kind in enumerate(_TELLING, start=1):
        if isinstance(exc, kind):
            return place
    return 10 if isinstance(exc, LinkLost) else 5


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", exc))
        else:
            yield exc
