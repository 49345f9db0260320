"""Processes whose parents have ended: they become children of the supervisor, where that can be.

Elsewhere (gVisor) they are the children of the container's first process, which tells nobody how
they end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Container

from sandbox.supervisor.restraint import Marks, mark_of

_PR_SET_CHILD_SUBREAPER = 36

_reaps = False


def reap_all() -> None:
    """Let what becomes an orphan below this process become its child; does nothing elsewhere."""
    global _reaps
    _reaps = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def nobodys_parent() -> int:
    """The process that orphans of this container have as their parent; 0 when nobody knows it."""
    if _reaps:
        return os.getpid()
    # Elsewhere than in a container, where nobody but tests runs a supervisor, 1 says nothing.
    return 1 if os.getppid() == 1 else 0


def is_child(pid: int) -> bool:
    """Whether a process is a child of this one, so that its end will be told."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap_orphans(known: Container[int], marks: Marks, coming: Container[int]) -> None:
    """Take note of the end of orphans, so that their places are free.

    Args:
        known: The processes that somebody waits for.
        coming: The marks of processes that were just forked, and somebody will wait for.
    """
    if not _reaps:
        return
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        for pid in map(int, file.read().split()):
            if pid not in known and _is_orphan(pid, marks, coming):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _is_orphan(pid: int, marks: Marks, coming: Container[int]) -> bool:
    """Whether it was started by code: whatever that starts has a mark."""
    try:
        mark = mark_of(pid)
    except OSError:
        return False
    return mark != -1 and mark not in coming
