"""A bound on the time that one session's, or one caller's, bytes take of the event loop.

Handlers of foreign bytes are linear in their input and bounded before they parse it. This is the
second barrier, for the handler that is not: synchronous work runs inside a :class:`Section`, and
what takes longer than its budget is stopped in the middle of it: the handler of an interval timer
raises there. What was worked on must then be set aside, and whoever sent it be told.

Counted is the processor time of the thread, so that a busy machine stops nobody. A timer's signal
reaches the main thread alone; in another one a section is measured when it ends and cuts nothing
short. Calls into C are stopped when they return, so what is given to one has a bound of its own.

No garbage is collected inside: what others have left in memory is not to be counted, and what a
collector calls would swallow the raise.

The timer runs on from section to section while there are any, and stops by itself: entering one
costs no system call.

setitimer(2), https://docs.python.org/3/library/signal.html#signal.setitimer
"""

from __future__ import annotations

import atexit
import gc
import signal
import threading
import time
from types import FrameType
from typing import Self

from sandbox.errors import TooMuchWork

BUDGET_S = 0.25
TICK_S = 0.02
"""How often a running section is looked at; it may take up to two of these more than its budget."""


class _OutOfTime(BaseException):
    """Raised inside a section whose time is over; no ``except Exception`` there holds it up."""


class Section:
    """A stretch of synchronous work on foreign bytes: ``with Section("a kernel message"):``.

    Sections nest; the outermost one's budget holds for all in it. There is no ``await`` inside.

    Args:
        whose: The session or principal whose bytes they are; empty where nobody is known.
        budget_s: Processor time, in seconds.

    Raises:
        TooMuchWork: On leaving it: the work took longer. In the main thread it was stopped
            half-way.
    """

    __slots__ = ("_began", "_budget_s", "_watch", "what", "whose")

    def __init__(self, what: str, whose: str = "", budget_s: float = BUDGET_S) -> None:
        self.what = what
        self.whose = whose
        self._budget_s = budget_s
        self._watch: _Watch | None = None
        self._began: float | None = None

    def __enter__(self) -> Self:
        if threading.get_ident() != _MAIN:
            self._began = time.thread_time()
        elif _watch.section is None:
            self._watch = _watch
            _watch.enter(self)
        return self

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if self._watch is not None:
            self._watch.leave()
            if isinstance(exc, _OutOfTime):
                raise self._error() from None
        elif (
            exc is None
            and self._began is not None
            and time.thread_time() - self._began > self._budget_s
        ):
            raise self._error()

    def check(self) -> None:
        """Called at each tick in which it runs: raise in the middle of its work if time is over."""
        now = time.thread_time()
        if self._began is None:
            self._began = now  # it may have begun up to a tick ago
        elif now - self._began >= self._budget_s:
            raise _OutOfTime

    def _error(self) -> TooMuchWork:
        return TooMuchWork(
            f"Working on {self.what} took more than {self._budget_s:g} s and was given up."
        )


class _Watch:
    """The main thread's timer and the section that it is in."""

    __slots__ = ("_collects", "_entered", "_is_running", "section")

    def __init__(self) -> None:
        self.section: Section | None = None
        self._collects = True
        self._is_running = False
        self._entered = False

    def enter(self, section: Section) -> None:
        self._collects = gc.isenabled()
        gc.disable()
        self.section = section
        self._entered = True
        if not self._is_running:
            self._is_running = True
            # At the end Python gives signals back to the system, which ends the process for one.
            atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._tick)
            signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)

    def leave(self) -> None:
        self.section = None  # from here on the timer raises nothing
        if self._collects:
            gc.enable()

    def _tick(self, _signal: int, frame: FrameType | None) -> None:
        if self.section is not None:
            if frame is None or frame.f_code not in _LEAVING:
                self.section.check()
        elif not self._entered:
            self._is_running = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            atexit.unregister(signal.setitimer)
        self._entered = False


_LEAVING = frozenset({Section.__exit__.__code__, _Watch.leave.__code__})
"""Where a section is left: cut short there, it would never be, and all that follows would be
stopped for it."""
_MAIN = threading.main_thread().ident
_watch = _Watch()


def current() -> Section | None:
    """The outermost section that the main thread is in; None between sections."""
    return _watch.section
