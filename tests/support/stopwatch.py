"""``sandbox`` with a stopwatch: callbacks of its event loop that take long are noted in a file.

Counted is the processor time of the loop's thread, once the controller is ready to serve.
``python -m tests.support.stopwatch serve …`` writes to the file that ``SLOW_CALLBACKS`` names.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from typing import Any

from sandbox.cli import main

LONG_S = 0.05
SLOW_CALLBACKS = "SLOW_CALLBACKS"


def watch(path: str) -> None:
    """Note each callback of an event loop that takes longer than ``LONG_S``."""
    plain = asyncio.Handle._run
    serves = False

    def timed(handle: Any) -> None:
        nonlocal serves
        served, began = serves, time.thread_time()
        plain(handle)
        took_s = time.thread_time() - began
        if not serves:  # to freeze is the last that is done before; to count takes a millisecond
            serves = gc.get_freeze_count() > 0
        elif served and took_s > LONG_S:
            with open(path, "a") as file:
                file.write(f"{took_s:.3f} s: {described(handle)}\n")

    asyncio.Handle._run = timed  # type: ignore[method-assign]


def described(handle: Any) -> str:
    """What a handle has run: of a task's step, where the task stands now."""
    callback = handle._callback
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return getattr(callback, "__qualname__", repr(callback))
    frames = [f"{f.f_code.co_qualname}:{f.f_lineno}" for f in task.get_stack()]
    return f"{task.get_name()} {' < '.join(frames)}"


if __name__ == "__main__":
    watch(os.environ[SLOW_CALLBACKS])
    sys.argv[0] = "sandbox"
    main()
