"""Signals that end a command in order: what it has opened is removed first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import anyio

from sandbox.errorgroups import one_error

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
AGAIN_S = 0.1


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


@contextmanager
def exit_by_signals(*numbers: signal.Signals) -> Generator[None]:
    """Raise ``SystemExit`` in the main thread, which this is, when one of these signals comes.

    What waits in C, as ``input`` does, hears of a signal only when that breaks a call of the system
    off, and one that comes just before the call does not: it is sent again until it was heard.
    What the command was started to ignore, as under nohup, stays ignored.
    """
    heard, main = threading.Event(), threading.get_ident()
    watched, told = os.pipe()
    os.set_blocking(told, False)

    def end(number: int, _frame: FrameType | None) -> None:
        if not heard.is_set():
            heard.set()
            sys.exit(128 + number)

    def repeat() -> None:
        while number := os.read(watched, 1):
            if number[0] in numbers:
                while not heard.wait(AGAIN_S):
                    signal.pthread_kill(main, number[0])

    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    watching = threading.Thread(target=repeat, name="signals", daemon=True)
    watching.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)
        watching.join()
        os.close(watched)
