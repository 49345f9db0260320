"""Task groups that raise one error, the one that says most, and not a group of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import cast

import anyio
from anyio.abc import TaskGroup

from sandbox.errors import EngineUnavailable, LinkLost, PolicyNotEnforced, SandboxError, SessionLost

_TELLING = (PolicyNotEnforced, SessionLost, EngineUnavailable)


@asynccontextmanager
async def one_error() -> AsyncGenerator[TaskGroup]:
    """A task group for parts of one thing: when some fail, their leading error is raised.

    A defect of ours comes first, so that it is not hidden; then what explains the others: a lost
    link is most often the effect, not the cause.
    """
    error: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        error = min(_leaves(group), key=_rank)
    if error is not None:
        raise error


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
