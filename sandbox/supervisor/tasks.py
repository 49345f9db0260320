"""Work that runs beside other work, for as long as that lasts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sandbox.link.link import first_error

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class Background:
    """Tasks that outlive the request that started them; one that fails ends alone."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` on its own."""
        self._group.create_task(self._run(work))

    async def finish(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for work that goes on to its end although whoever waits may give up meanwhile."""
        outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await work
            except Exception as exc:
                if not outcome.cancelled():
                    outcome.set_exception(exc)
            else:
                if not outcome.cancelled():
                    outcome.set_result(result)

        self.start(run())
        return await outcome

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # the outermost edge: kernels and terminals must not end with this one
            logger.exception("a task failed")


@asynccontextmanager
async def alongside(*work: Coroutine[Any, Any, Any]) -> AsyncGenerator[None]:
    """Run ``work`` while the block runs; the block's end cancels what is left of it.

    An error on either side ends the other and is raised as it is, not in a group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in work]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
