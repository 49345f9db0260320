"""Notices from a thread of its own that the event loop has not turned for a while, and says where.

A callback that holds the loop holds up all sessions. Its line in the log names the session whose
bytes were worked on, where that is known, and the place; the processor time beside the time that
passed tells work from a machine that stood still.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Self

from sandbox.bulkheads import bulkhead

HELD_S = 0.25
LOOK_INTERVAL_S = 0.1
LOG_INTERVAL_S = 5.0
"""At most one line in this time; the next one says how many were left out."""

_PACKAGE = str(Path(__file__).parents[1])

logger = logging.getLogger(__name__)


def settle() -> None:
    """Say before serving that what is in memory by now is there to stay.

    Otherwise the garbage collector walks over all modules again and again while an answer of many
    parts is made: one of 60,000 empty lists held the loop up for 0.6 s.
    """
    gc.collect()
    gc.freeze()


class Watchdog:
    """Watches the running event loop of the main thread inside ``with Watchdog():``."""

    def __init__(self, held_s: float = HELD_S) -> None:
        self._held_s = held_s
        self._loop = asyncio.get_running_loop()
        self._main = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._main)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._logged_at = -LOG_INTERVAL_S
        self._left_out = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_INTERVAL_S):
            turned = threading.Event()
            began, worked = time.monotonic(), time.clock_gettime(self._clock)
            try:
                self._loop.call_soon_threadsafe(turned.set)
            except RuntimeError:  # it is closed
                return
            if turned.wait(self._held_s):
                continue
            who, where = self._who(), self._where()
            while not turned.wait(LOOK_INTERVAL_S):
                if self._stop.is_set():
                    return
            self._tell(
                who, where, time.monotonic() - began, time.clock_gettime(self._clock) - worked
            )

    @staticmethod
    def _who() -> str:
        section = bulkhead.current()
        if section is None:
            return "nobody in particular"
        return f"{section.whose or 'nobody in particular'} ({section.what})"

    def _where(self) -> str:
        """The innermost place in this package where the main thread is."""
        innermost = frame = sys._current_frames().get(self._main)  # pyright: ignore[reportPrivateUsage]  # documented, if for specialized purposes
        while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
            frame = frame.f_back
        return _place(frame or innermost)

    def _tell(self, who: str, where: str, held_s: float, worked_s: float) -> None:
        now = time.monotonic()
        if now - self._logged_at < LOG_INTERVAL_S:
            self._left_out += 1
            return
        logger.warning(
            "the event loop was held up for %.2f s (%.2f s of processor time), for %s, in %s%s",
            held_s,
            worked_s,
            who,
            where,
            f"; {self._left_out} more times since the last such line" if self._left_out else "",
        )
        self._logged_at, self._left_out = now, 0


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return "an unknown place"
    name = frame.f_code.co_filename.removeprefix(str(Path(_PACKAGE).parent)).lstrip("/")
    return f"{name}:{frame.f_lineno} {frame.f_code.co_qualname}"
