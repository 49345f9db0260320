"""The kernel's event loop: it lives between cells, and never stands in the way of a cell's own.

A cell without top-level ``await`` runs between two turns of the loop, not in one. To the cell the
loop is the running one all the same, so that ``asyncio.create_task`` works as in any notebook; and
since it does not really run, ``asyncio.run`` and ``run_until_complete`` work as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import Any

from IPython.core import async_helpers

_AWAIT = "asyncio.run() cannot be called from a running event loop: write `await …` instead"


class KernelLoop(asyncio.SelectorEventLoop):
    """The loop of the kernel's one thread."""

    def is_running(self) -> bool:
        """Whether it runs, or a cell may take it as running."""
        return self.really_runs() or asyncio._get_running_loop() is self

    def really_runs(self) -> bool:
        """Whether one of its callbacks runs."""
        return super().is_running()

    def run_until_complete(self, future: Any) -> Any:
        """Run until a future is done, also when a cell that runs between two turns asks."""
        with self.stood_back():
            return super().run_until_complete(future)

    @contextlib.contextmanager
    def shown(self) -> Generator[None]:
        """Be the running loop to code that runs between two turns."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    @contextlib.contextmanager
    def stood_back(self) -> Generator[None]:
        """Let another loop run, or this one itself, if it is only shown as running."""
        if self.really_runs() or asyncio._get_running_loop() is not self:
            yield
            return
        asyncio._set_running_loop(None)
        try:
            yield
        finally:
            asyncio.set_event_loop(self)
            asyncio._set_running_loop(self)

    def run_cell(self, cell: Coroutine[Any, Any, Any]) -> Any:
        """Run a cell with top-level ``await``; an interrupt ends it, and leaves its tasks alone."""
        task = self.create_task(cell)

        def interrupted(_number: int, _frame: FrameType | None) -> None:
            if asyncio.current_task(self) is not None:
                raise KeyboardInterrupt  # into the code that runs now, which may not await
            self.call_soon_threadsafe(task.cancel)

        before = signal.signal(signal.SIGINT, interrupted)
        try:
            return self.run_until_complete(task)
        except KeyboardInterrupt:
            if not task.done():  # it was some other task that was interrupted
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    return self.run_until_complete(task)
            raise
        finally:
            signal.signal(signal.SIGINT, before)


class Runner:
    """What IPython runs cells with; it is shown to people by its name."""

    def __init__(self, loop: KernelLoop) -> None:
        self._loop = loop

    def __call__(self, cell: Coroutine[Any, Any, Any]) -> Any:
        """Run a cell with top-level ``await``."""
        return self._loop.run_cell(cell)

    def __str__(self) -> str:
        return "asyncio"


def make() -> KernelLoop:
    """Make the kernel's loop, and let IPython and ``asyncio.run`` know it."""
    loop = KernelLoop()
    asyncio.set_event_loop(loop)
    async_helpers._asyncio_event_loop = loop  # pyright: ignore[reportPrivateUsage]  # it asks nobody
    asyncio.run = asyncio.runners.run = _standing_back(loop, asyncio.run)
    asyncio.Runner.run = _standing_back(loop, asyncio.Runner.run)
    return loop


def _standing_back(loop: KernelLoop, run: Callable[..., Any]) -> Any:
    @functools.wraps(run)
    def wrapped(*args: Any, **options: Any) -> Any:
        if loop.really_runs() and asyncio._get_running_loop() is loop:
            for each in args:
                if asyncio.iscoroutine(each):
                    each.close()
            raise RuntimeError(_AWAIT)
        with loop.stood_back():
            return run(*args, **options)

    return wrapped
