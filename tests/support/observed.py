"""``sandbox`` whose clock a test turns, and which tells what runs in it when it is asked.

``python -m tests.support.observed serve …``: the file that ``OBSERVED`` names holds by how many
seconds it is later than it is. After SIGUSR1 the tasks and threads there are stand in a file beside
it, whose name ends in ``.told``.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import runpy
import signal
import struct
import sys
import threading
import time
from collections import Counter
from pathlib import Path

OBSERVED = "OBSERVED"
_OFFSET = struct.Struct("d")
POOLED = ("AnyIO worker thread", "asyncio_")
"""Threads that stay for a while for the next who needs one."""


def observable(folder: Path) -> dict[str, str]:
    """Make what it needs in a folder; the variables with which it is started."""
    path = folder / "observed"
    if not path.exists():
        path.write_bytes(_OFFSET.pack(0.0))
    return {OBSERVED: str(path)}


def turn(folder: Path, seconds: float) -> None:
    """From now on it is so much later than it is; earlier, if that is less than nothing."""
    with (folder / "observed").open("r+b") as file:
        file.write(_OFFSET.pack(seconds))


def turned(path: Path) -> None:
    """Have this process's clock say what the file says."""
    with path.open("rb") as file:
        shared = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    plain = time.time

    def later() -> float:
        return plain() + _OFFSET.unpack(shared)[0]

    time.time = later


def tell(path: Path) -> None:
    """Write which tasks and threads there are, by what they do."""
    tasks = Counter(_what(task) for task in asyncio.all_tasks())
    threads = Counter(
        thread.name for thread in threading.enumerate() if not thread.name.startswith(POOLED)
    )
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps({"tasks": tasks, "threads": threads}))
    partial.replace(path.with_suffix(".told"))


def _what(task: asyncio.Task[object]) -> str:
    return getattr(task.get_coro(), "__qualname__", repr(task.get_coro()))


if __name__ == "__main__":
    watched = Path(os.environ[OBSERVED])
    turned(watched)
    signal.signal(signal.SIGUSR1, lambda *_: tell(watched))
    sys.argv[0] = "sandbox"
    runpy.run_module("sandbox", run_name="__main__", alter_sys=False)
