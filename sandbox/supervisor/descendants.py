"""All processes that one has started, wherever they are now: finding and ending them.

Nothing here forks, and of descriptors it takes reserved ones: it works when the code inside has
used up everything it may have.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable

from sandbox.supervisor.orphans import nobodys_parent
from sandbox.supervisor.restraint import Marks, every_descriptor, mark_of

PATIENCE_S = 2.0
"""How long what is ended may go on making new processes before the rest is let be, and logged."""

FEW = 64
"""So many are stopped, so that they are counted; more may be a bomb, whose group is killed."""

_BEGAN = 19
"""Where in a process's ``stat``, after its name, the ticks are at which it began."""
_TICKS = os.sysconf("SC_CLK_TCK")
_RUNNING = ("R", "S", "D")

logger = logging.getLogger(__name__)


def end_descendants(
    root: int, mark: int, marks: Marks, *, leader: int = 0, spare: frozenset[int] = frozenset()
) -> int:
    """End a process and all that carry its mark; returns how many ran (of very many, fewer).

    They are stopped first, all of them, so that none makes another while others are killed: at its
    limit of processes, each one that goes would be replaced. The first one's group is stopped by
    one call, or killed where none is spared and there are many: under a bomb each call has to wait
    for its turn.

    Args:
        root: The first of them, while it lives; else 0.
        leader: The number of the first of them, alive or not, which led a process group.
        marks: Those that were given: who has none of them hides where it comes from, and is ended
            unless a parent of it tells that it is another's.
        spare: Those that go on afterwards.
    """
    known: set[int] = set()
    stopped: set[int] = set()
    until = time.monotonic() + PATIENCE_S
    with every_descriptor():
        stopped |= {pid for pid in spare if _goes_on(pid, is_spared=True)}
        if root:
            _signal_all((-root,), signal.SIGSTOP if spare else signal.SIGKILL)
        while (found := descendants(root, mark, marks) - known) and time.monotonic() < until:
            while found and time.monotonic() < until:
                known |= found
                if not root and _leads(leader, found):
                    is_bomb = not spare and len(found) > FEW
                    _signal_all((-leader,), signal.SIGKILL if is_bomb else signal.SIGSTOP)
                running = {pid for pid in found if _goes_on(pid, is_spared=pid in spare)}
                _signal_all(running, signal.SIGSTOP)
                stopped |= running
                found = descendants(root, mark, marks) - known
            _signal_all(known - spare, signal.SIGKILL)
        _signal_all(stopped & spare, signal.SIGCONT)
    if found:
        logger.warning("processes are made faster than they can be ended")
    return len(stopped - spare)


def descendants(root: int, mark: int, marks: Marks) -> frozenset[int]:
    """The processes that :func:`end_descendants` would end, and those of them that have ended."""
    found = {root} if root else set[int]()
    hidden: set[int] = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            pid = int(name)
            with contextlib.suppress(OSError):  # it has ended meanwhile, or is not one of ours
                theirs = mark_of(pid)
                if theirs == mark:
                    found.add(pid)
                elif not marks.is_given(theirs):
                    hidden.add(pid)
    return frozenset(found | {pid for pid in hidden if _belongs(pid, found, hidden, marks)})


def has_begun_before(pid: int, at: float) -> bool:
    """Whether a process began before a moment: at least in the hundredth of a second before it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            began = int(file.read().rpartition(b")")[2].split()[_BEGAN])
    except (OSError, ValueError, IndexError):
        return False
    return began < int(at * _TICKS)


def _leads(leader: int, members: Iterable[int]) -> bool:
    """Whether a number is that of the group of one of them, and nobody else's by now."""
    with contextlib.suppress(OSError, StopIteration):
        return os.getpgid(next(iter(members))) == leader
    return False


def _belongs(pid: int, members: set[int], hidden: set[int], marks: Marks) -> bool:
    """Whether a process that hides where it comes from is below one of these, or below nobody."""
    seen: set[int] = set()
    while pid in hidden and pid not in seen and pid not in marks.leaders:
        seen.add(pid)
        pid = int(_stat(pid)[1])
    return pid in members or (bool(pid) and pid == nobodys_parent())


def _goes_on(pid: int, *, is_spared: bool) -> bool:
    """Whether a process has not ended; one that is spared also must not have been stopped before.

    To ask for the state of a process that starts another program means to wait for that, so it is
    not asked where it makes no difference: who has no memory has ended.
    """
    if is_spared:
        return _stat(pid)[0] in _RUNNING
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return not file.read().startswith(b"0 ")
    except OSError:
        return False


def _stat(pid: int) -> tuple[str, str]:
    """The state and the parent of a process; a dead one below nobody when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, parent = file.read().decode("latin-1").rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return "X", "0"
    return state, parent


def _signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
