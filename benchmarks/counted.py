"""``sandbox`` that says on a signal how many tasks and threads it has, for who looks for leaks.

``python -m benchmarks.counted serve …`` writes to the file that ``COUNTS`` names at each SIGUSR1.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

from sandbox.cli import main

COUNTS = "COUNTS"


def tell(path: Path) -> None:
    """Write the counts down; what is garbage is none of them."""
    gc.collect()
    tasks = Counter(
        getattr(task.get_coro(), "__qualname__", "?")
        for task in asyncio.all_tasks()
        if not task.done()
    )
    told = {"tasks": tasks, "threads": threading.active_count()}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(told))
    fresh.replace(path)


def listen(path: Path) -> None:
    """Tell whenever the signal comes, which the event loop's thread takes."""

    def told(_number: int, _frame: FrameType | None) -> None:
        tell(path)

    signal.signal(signal.SIGUSR1, told)


if __name__ == "__main__":
    listen(Path(os.environ[COUNTS]))
    sys.argv[0] = "sandbox"
    main()
