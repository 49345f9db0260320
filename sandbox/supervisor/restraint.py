"""What every process that runs code is allowed less of than the supervisor, which so keeps room.

Limits are inherited, and nobody here may raise them again, whatever a program does to its session,
environment or parents. So one of them also tells where a process comes from: the *mark*, a hard
limit on resident memory that no system looks at, and that no two kernels, commands or terminals
have in common.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Generator

NICE = 19
"""Of all code alike, so that it loses nothing to itself; the supervisor runs at 0."""
OOM_SCORE = "750"
"""Whoever runs code goes before the supervisor (500) when memory ends."""
FIRST_TO_GO = "1000"
"""What only keeps a state goes before whoever runs code, who may be larger by a quarter of all."""
RESERVED_PROCESSES = 16
"""For the supervisor's forks and the engine's way in for a new link."""
RESERVED_DESCRIPTORS = 32
"""Of the supervisor's own, for ending processes and starting kernels."""

_PROGRAM = "/usr/bin/prlimit"
_LIMIT_FILES = ("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max")
_NAMES = {
    resource.RLIMIT_RSS: "rss",
    resource.RLIMIT_NPROC: "nproc",
    resource.RLIMIT_NOFILE: "nofile",
}
_MARK_UNIT = 1024
_MARK_BASE = 1 << 60

_opened = 0


class Marks:
    """The marks of one supervisor: no two alike, the later ones lower.

    A process can lower its own, which makes it one that was never given, or not yet.
    """

    def __init__(self) -> None:
        # Not at the same place for two supervisors, which in tests run side by side.
        self._first = _MARK_BASE + int.from_bytes(os.urandom(4)) * (_MARK_UNIT << 20)
        self._next = self._first
        self.leaders: set[int] = set()
        """The processes that the supervisor itself has started, or taken charge of."""

    def new(self) -> int:
        """A mark that nobody has."""
        mark, self._next = self._next, self._next - _MARK_UNIT
        return mark

    def is_given(self, mark: int) -> bool:
        """Whether it is one that was given to somebody, or none at all, as the supervisor's own."""
        return mark == resource.RLIM_INFINITY or self._next < mark <= self._first


def mark_of(pid: int) -> int:
    """The mark of a process, zombies included.

    Raises:
        OSError: There is no such process, or it is another user's.
    """
    return resource.prlimit(pid, resource.RLIMIT_RSS)[1]


def restrain(mark: int) -> None:
    """Restrain this process, which was just forked from the supervisor, before it runs code."""
    for limit, value in _limits(mark).items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
    give_way(os.getpid())


def take_mark(mark: int) -> None:
    """Take a mark of its own, in a fork of a process that has one.

    Raises:
        OSError: It has lowered its own, so that nothing would tell the two apart.
    """
    if mark != resource.RLIM_INFINITY and mark > mark_of(os.getpid()) >= 0:
        raise PermissionError("this process has lowered its limit of resident memory")
    resource.setrlimit(resource.RLIMIT_RSS, (mark, mark))


def restrained(argv: list[str], mark: int) -> list[str]:
    """The arguments that start a program restrained; :func:`give_way` belongs to it."""
    limits = [f"--{_NAMES[limit]}={value}:{value}" for limit, value in _limits(mark).items()]
    return [_PROGRAM, *limits, "--", *argv]


def give_way(pid: int, oom_score: str = OOM_SCORE) -> None:
    """Let a process that will run code have the processors, and live, only after the supervisor."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
    with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as score:
        score.write(oom_score)


def reserve_descriptors() -> None:
    """Keep the last of this process's descriptors for :func:`every_descriptor`."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most - RESERVED_DESCRIPTORS, most // 2), most))


@contextlib.contextmanager
def every_descriptor() -> Generator[None]:
    """Let this process have all its descriptors meanwhile; blocks may overlap."""
    global _opened
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    _opened += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        yield
    finally:
        _opened -= 1
        if not _opened:
            reserve_descriptors()


def _limits(mark: int) -> dict[int, int]:
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = {resource.RLIMIT_RSS: mark, resource.RLIMIT_NOFILE: descriptors}
    return limits if _PROCESSES is None else {**limits, resource.RLIMIT_NPROC: _PROCESSES}


def _processes() -> int | None:
    """How many processes code may have: what the container may, without what is reserved."""
    limits = [resource.getrlimit(resource.RLIMIT_NPROC)[1]]
    for path in _LIMIT_FILES:
        with contextlib.suppress(OSError, ValueError), open(path) as file:
            limits.append(int(file.read()))
    known = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    return max(min(known) - RESERVED_PROCESSES, min(known) // 2) if known else None


_PROCESSES = _processes()
