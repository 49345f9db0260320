"""Branches and rollbacks of a kernel that holds a gigabyte, and forks of sessions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import anyio.to_thread

from benchmarks.cells import seconds
from benchmarks.lean import LeanClient
from benchmarks.measures import MEGABYTE, check
from benchmarks.report import Figure, spread
from scripts.controller import Controller

LOAD = "import numpy\ndata = numpy.ones(125_000_000)\ndata.nbytes"
LOOK = "data[-1]"
SEEN = "np.float64(1.0)"
BRANCHES = 10
FORKED_BYTES = 100 * MEGABYTE


async def branches(server: Controller) -> list[Figure]:
    """Each until the new process has answered a cell."""
    return await anyio.to_thread.run_sync(_branches, server)


async def session_forks(server: Controller) -> list[Figure]:
    """``fork_session`` until the fork is there, with its variables."""
    return await anyio.to_thread.run_sync(_session_forks, server)


def _branches(server: Controller, runs: int = 20, rounds: int = 5) -> list[Figure]:
    with LeanClient(server) as lean:
        opened = lean.call("open_session", policy="bench-data", reuse=False)
        here = {"session_id": opened["session_id"]}
        loaded = lean.run(LOAD, **here)
        check(loaded["text"] == "1000000000", loaded)
        made: list[str] = []

        def look(kernel: str = "k-default") -> None:
            told = lean.run(LOOK, kernel_id=kernel, **here)
            check(told["text"] == SEEN, told)

        def branch() -> None:
            made.append(lean.call("branch_kernel", **here)["kernel_id"])
            look(made[-1])

        def stop() -> None:
            while made:
                lean.call("stop_kernel", kernel_id=made.pop(), **here)

        one: list[float] = []
        for _ in range(runs):
            one += seconds(branch, 1)
            stop()
        ten: list[float] = []
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(BRANCHES):
                branch()
            ten.append(time.perf_counter() - start)
            stop()
        lean.call("checkpoint_kernel", name="loaded", **here)
        back: list[float] = []
        alone: list[float] = []
        for _ in range(runs):
            lean.run("data[-1] = 2", **here)
            start = time.perf_counter()
            lean.call("rollback_kernel", name="loaded", **here)
            alone.append(time.perf_counter() - start)
            look()
            back.append(time.perf_counter() - start)
        lean.call("close_session", **here)
    return [
        _ms("branch of 1 GB, until it has run a cell", one, 10),
        _ms(f"{BRANCHES} of them, one after the other", ten, 80),
        _ms("rollback of 1 GB, until it has run a cell", back, 15, f"; the call {spread(alone)}"),
    ]


def _session_forks(server: Controller, runs: int = 5) -> list[Figure]:
    with LeanClient(server) as lean:

        def opened() -> str:
            return lean.call("open_session", policy="bench", reuse=False)["session_id"]

        def forked() -> str:
            return lean.call("fork_session", **source)["sessions"][0]["session_id"]

        source = {"session_id": opened()}

        def measured(make: Callable[[], str], code: str) -> float:
            start = time.perf_counter()
            session = make()
            lean.run(code, session_id=session)
            took = time.perf_counter() - start
            lean.call("close_session", session_id=session)
            return took

        lean.run("kept = 1", **source)
        empty: list[float] = []
        fresh: list[float] = []
        for _ in range(runs):
            empty.append(measured(forked, "kept"))
            fresh.append(measured(opened, "1"))
        lean.run(f"data = bytearray({FORKED_BYTES})", **source)
        full = [measured(forked, "kept, data[-1]") for _ in range(runs)]
        lean.call("close_session", **source)
    ratio = statistics.median(empty) / statistics.median(fresh)
    rate = FORKED_BYTES / MEGABYTE / (statistics.median(full) - statistics.median(empty))
    detail = f"each until it has run a cell: fork {spread(empty)}; new session {spread(fresh)}"
    return [
        Figure("fork_session / open_session", ratio, "×", 1.5, True, detail),
        Figure("fork of a session with 100 MB", rate, "MB/s", 100, False, spread(full)),
    ]


def _ms(name: str, durations: list[float], target: float, more: str = "") -> Figure:
    value = 1000 * statistics.median(durations)
    return Figure(name, value, "ms", target, True, f"{spread(durations)}{more}")
