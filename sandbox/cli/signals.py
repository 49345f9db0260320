"""Signals that end a command in order: what it has opened is removed first."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio

from sandbox.errorgroups import one_error

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class SignalEnding:
    """Whether a signal ends the command, and what its first Ctrl-C does instead."""

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        """The signal that ended it."""
        self.interrupt: Callable[[], Coroutine[Any, Any, None]] | None = None
        """What Ctrl-C does the first time; None when it ends the command at once."""

    @property
    def exit_code(self) -> int:
        """As of a process that the signal ended."""
        return 128 + (self.number or 0)


@asynccontextmanager
async def ended_by_signals() -> AsyncGenerator[SignalEnding]:
    """Cancel the block when a signal ends the command; a second Ctrl-C always does.

    What the command was started to ignore, as under nohup, stays ignored.
    """
    ending = SignalEnding()
    heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    async with one_error() as tasks:
        with anyio.open_signal_receiver(*heeded) as signals:

            async def listen() -> None:
                async for number in signals:
                    act, ending.interrupt = ending.interrupt, None
                    if number == signal.SIGINT and act is not None:
                        tasks.start_soon(act)
                    else:
                        ending.number = number
                        tasks.cancel_scope.cancel()
                        # From here on it is being ended, which no signal may break off.

            tasks.start_soon(listen)
            yield ending
            tasks.cancel_scope.cancel()
