"""How fast a cell's output arrives, and what the controller keeps of it meanwhile."""

from __future__ import annotations

import statistics
from pathlib import Path

import anyio.to_thread

from benchmarks.cells import seconds
from benchmarks.lean import LeanClient
from benchmarks.measures import MEGABYTE, check
from benchmarks.report import Figure, spread
from scripts.controller import Controller

WAYS = {
    "10 MB of stdout in one print": "print('x' * 9_999_999)",
    "10 MB of stdout in lines": "for _ in range(100_000): print('x' * 99)",
}
PRINTED_BYTES = 10 * MEGABYTE


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident since ``forget_peak``."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def forget_peak(pid: int) -> None:
    """Count the most memory that a process has had from now on (proc_pid_clear_refs(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def ten_megabytes(server: Controller, here: str) -> list[Figure]:
    """The whole call, with the controller's peak of memory during it."""
    return await anyio.to_thread.run_sync(_ten_megabytes, server, here)


def _ten_megabytes(server: Controller, here: str, runs: int = 3) -> list[Figure]:
    figures: list[Figure] = []
    grown: list[float] = []
    with LeanClient(server) as lean:
        for name, code in WAYS.items():

            def work(code: str = code) -> None:
                told = lean.run(code, session_id=here)
                check(told.get("truncated_bytes", 0) > 0, told.keys())

            work()
            forget_peak(server.pid)
            before = peak_bytes(server.pid)
            durations = seconds(work, runs)
            grown.append((peak_bytes(server.pid) - before) / MEGABYTE)
            value = PRINTED_BYTES / MEGABYTE / statistics.median(durations)
            figures.append(Figure(name, value, "MB/s", 60, False, spread(durations)))
    detail = f"above what it had before, while {runs} cells print in one and {runs} in lines"
    figures.append(Figure("controller memory meanwhile", max(grown), "MB", 20, True, detail))
    return figures
