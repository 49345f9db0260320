"""The memory that a session has left, and whether another fork of a kernel fits in it."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from dataclasses import dataclass

from sandbox.errors import QuotaExceeded
from sandbox.supervisor import oom

SHARE = 4
"""A fork shares all memory at first; room for this part of it to be written to has to be there."""
LEAST_BYTES = 16 * 1024**2
GVISOR_BYTES = 64 * 1024**2
GVISOR_BYTES_PER_PROCESS = 4 * 1024**2
"""What is kept free for gVisor itself, whose own memory ``/proc/meminfo`` does not count."""

_FILES = (
    ("memory.max", "memory.current", "memory.stat", ("inactive_file", "active_file")),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        ("total_inactive_file", "total_active_file"),
    ),
)
_UNLIMITED = 1 << 60
_PRIVATE = re.compile(rb"^Private_(?:Clean|Dirty):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Headroom:
    """What a session may use of memory, and uses."""

    limit_bytes: int
    used_bytes: int
    """Without copies of files, which the system gives back."""

    def check(self, pid: int) -> None:
        """Refuse a fork of a process that the session's limit may not hold.

        Raises:
            QuotaExceeded: It says the figures.
        """
        size = resident_bytes(pid)
        needed = max(LEAST_BYTES, size // SHARE)
        if self.used_bytes + needed > self.limit_bytes:
            raise QuotaExceeded(
                f"There is no memory for a copy of this kernel: it has {_mib(size)} MiB, of which "
                f"{_mib(needed)} MiB must be free for what changes, and the session uses "
                f"{_mib(self.used_bytes)} of its {_mib(self.limit_bytes)} MiB.",
                remedy="Drop a checkpoint, stop a kernel, or delete what is no longer needed.",
            )


def headroom() -> Headroom | None:
    """How much of its memory the session uses; None when nothing tells, or there is no limit."""
    for limit_file, used_file, stat_file, given_back in _FILES:
        with contextlib.suppress(OSError, ValueError, KeyError):
            limit = int(_read(limit_file))
            lines = _read(stat_file).decode().splitlines()
            stat = dict(line.split() for line in lines)
            used = int(_read(used_file)) - sum(int(stat[name]) for name in given_back)
            return Headroom(limit, used) if limit < _UNLIMITED else None
    with contextlib.suppress(OSError, ValueError, KeyError):
        total, free = meminfo()
        return Headroom(total - kept_bytes(), total - free)
    return None


def kept_bytes() -> int:
    """How much the memory guard keeps free; 0 where the kernel does that, or nothing is known."""
    if oom.read() is None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            total, _ = meminfo()
            processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
            return min(total // 3, GVISOR_BYTES + GVISOR_BYTES_PER_PROCESS * max(0, processes))
    return 0


def meminfo() -> tuple[int, int]:
    """The bytes of memory there are, and those that are free, as ``/proc/meminfo`` says."""
    with open("/proc/meminfo", "rb") as file:
        found = dict(line.split()[:2] for line in file)
    return int(found[b"MemTotal:"]) * 1024, int(found[b"MemFree:"]) * 1024


def resident_bytes(pid: int) -> int:
    """What a process has in memory, shared or not; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def own_bytes(pid: int) -> int:
    """What would be free if a process ended: what it shares with nobody, where that is known."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return sum(int(number) for number in _PRIVATE.findall(file.read())) * 1024
    except OSError:
        return resident_bytes(pid)


def _read(name: str) -> bytes:
    with open(os.path.join("/sys/fs/cgroup", name), "rb") as file:
        return file.read()


def _mib(number: int) -> str:
    return f"{number / 2**20:,.0f}"
