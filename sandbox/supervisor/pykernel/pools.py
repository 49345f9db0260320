"""Pools of threads that wait for work: ended before a fork; they come back when they are needed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, thread
from queue import Empty
from typing import Any, cast

JOIN_S = 1.0
_LIBRARY = re.compile(
    rb"^[0-9a-f]+-[0-9a-f]+ r-xp .* (/\S*/\S*(?:openblas|gomp|iomp|libomp)\S*)$", re.M
)
_WORKER: Any = cast("Any", thread)._worker
_OMP_PAUSE_HARD = 2
_ENDS = (("blas_thread_shutdown_", ()), ("omp_pause_resource_all", (_OMP_PAUSE_HARD,)))
"""The functions with which OpenBLAS and OpenMP end their idle threads."""


def drain() -> None:
    """End the idle threads of BLAS, OpenMP, ``asyncio.to_thread`` and thread pool executors.

    What is at work is left alone.
    """
    _end_progress_monitor()
    pools = {id(pool): pool for each in threading.enumerate() if (pool := _executor_of(each))}
    members = {thread for pool in pools.values() for thread in pool._threads}
    if members | {threading.main_thread()} >= set(threading.enumerate()):
        for pool in pools.values():  # else somebody may give one of them work at this moment
            _drain_executor(pool)
    if len(os.listdir("/proc/self/task")) > threading.active_count():
        _drain_native()


def _end_progress_monitor() -> None:
    """End the thread with which tqdm looks after its bars; the next bar has another."""
    bars: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
    with contextlib.suppress(Exception):  # there is none, or tqdm is another by now
        bars.monitor.exit()


def _executor_of(member: threading.Thread) -> ThreadPoolExecutor | None:
    if getattr(member, "_target", None) is not _WORKER:
        return None
    with contextlib.suppress(Exception):  # it ends at this moment
        found: Any = member._args[0]()  # type: ignore[attr-defined]
        return found if isinstance(found, ThreadPoolExecutor) else None
    return None


def _drain_executor(pool: Any) -> None:
    """End the workers of an executor all of which wait; it goes on with new ones."""
    with pool._shutdown_lock:
        idle = pool._idle_semaphore._value >= len(pool._threads) and pool._work_queue.empty()
        if not idle or pool._shutdown or pool._broken:
            return
        pool._shutdown = True
        pool._work_queue.put(None)  # each passes it on to the next
    workers = tuple(pool._threads)
    for worker in workers:
        worker.join(JOIN_S)
    with pool._shutdown_lock:
        with contextlib.suppress(Empty):
            while True:
                pool._work_queue.get_nowait()
        pool._shutdown = False
        pool._threads.difference_update(each for each in workers if not each.is_alive())
        pool._idle_semaphore = threading.Semaphore(0)


def _drain_native() -> None:
    with open("/proc/self/maps", "rb") as file:
        paths = sorted(set(_LIBRARY.findall(file.read())))
    for path in paths:
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(os.fsdecode(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
            for name, arguments in _ENDS:
                with contextlib.suppress(AttributeError):
                    getattr(library, name)(*arguments)
