"""What in the container would do something although nobody speaks to it: the operation
``activity``.

A thread that waits without a time-out, be it for a lock, a child, or what comes through a socket,
waits for somebody else; where every thread does, nothing happens until the link brings something.
What each one waits for the kernel tells, of whatever language it is, and nobody is woken up by the
question.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
from collections.abc import Iterator, Mapping

from sandbox.link.stream import Stream
from sandbox.supervisor.kernelhosts import KernelHosts
from sandbox.supervisor.requests import answer
from sandbox.supervisor.restraint import every_descriptor, mark_of

MAX_TOLD = 5
MAX_COMMAND = 100
RUNS, HAS_A_TIMER, CANNOT_BE_TOLD = "runs", "waits for a time", "cannot be looked at"

_ALWAYS, _NULL, _MINUS_ONE = None, 0, 0xFFFFFFFF
_Calls = Mapping[int, tuple[int, int] | None]
"""Of system calls that wait, by their numbers: which argument is the time-out, and what it is where
there is none; None where there never is one."""
_X86_64: _Calls = {
    **dict.fromkeys((0, 1, 19, 20), _ALWAYS),  # read, write, readv, writev
    **dict.fromkeys((43, 288, 44, 45, 46, 47), _ALWAYS),  # accept, accept4, send…, recv…
    **dict.fromkeys((34, 61, 130, 247), _ALWAYS),  # pause, wait4, rt_sigsuspend, waitid
    **dict.fromkeys((65, 70, 72, 73), _ALWAYS),  # semop, msgrcv, fcntl, flock
    7: (2, _MINUS_ONE),  # poll
    **dict.fromkeys((232, 281), (3, _MINUS_ONE)),  # epoll_wait, epoll_pwait
    **dict.fromkeys((23, 270), (4, _NULL)),  # select, pselect6
    271: (2, _NULL),  # ppoll
    128: (2, _NULL),  # rt_sigtimedwait
    202: (3, _NULL),  # futex
    441: (3, _NULL),  # epoll_pwait2
    299: (4, _NULL),  # recvmmsg
}
_AARCH64: _Calls = {
    **dict.fromkeys((63, 64, 65, 66), _ALWAYS),  # read, write, readv, writev
    **dict.fromkeys((202, 242, 206, 207, 211, 212), _ALWAYS),  # accept, accept4, send…, recv…
    **dict.fromkeys((95, 133, 260), _ALWAYS),  # waitid, rt_sigsuspend, wait4
    **dict.fromkeys((193, 188, 25, 32), _ALWAYS),  # semop, msgrcv, fcntl, flock
    22: (3, _MINUS_ONE),  # epoll_pwait
    72: (4, _NULL),  # pselect6
    73: (2, _NULL),  # ppoll
    137: (2, _NULL),  # rt_sigtimedwait
    98: (3, _NULL),  # futex
    441: (3, _NULL),  # epoll_pwait2
    243: (4, _NULL),  # recvmmsg
}
_CALLS = {"x86_64": _X86_64, "aarch64": _AARCH64}.get(platform.machine(), {})
_SLEEPS = {
    "x86_64": (35, 230, 219),  # nanosleep, clock_nanosleep, restart_syscall
    "aarch64": (101, 115, 128),
}.get(platform.machine(), ())
_AT_REST = ("T", "t", "Z", "X")
"""States of threads that are stopped or have ended."""
_WAITS = "S"


class Activity:
    """The operation ``activity``.

    Args:
        kernels: What the kernels' own processes are called by.
    """

    def __init__(self, kernels: KernelHosts) -> None:
        self._kernels = kernels

    async def tell(self, stream: Stream) -> None:
        """``activity``"""
        with every_descriptor():
            found = sorted(awake(self._kernels.processes()))
        found += [f"the kernel {each} has set an alarm" for each in await self._kernels.alarms()]
        told = found[:MAX_TOLD]
        if more := len(found) - len(told):
            told.append(f"{more} more")
        await answer(stream, awake=told)


def awake(kernels: Mapping[int, str]) -> Iterator[str]:
    """The processes of those that the supervisor has started that would do something, in words."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            pid = int(name)
            with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
                if mark_of(pid) != resource.RLIM_INFINITY and (does := doing(pid)):
                    yield f"{_called(pid, kernels)} {does}"


def doing(pid: int) -> str:
    """What a process does by itself, in words; empty where it only waits for others.

    Raises:
        OSError: It has ended.
    """
    for tid in os.listdir(f"/proc/{pid}/task"):
        task = f"/proc/{pid}/task/{tid}"
        try:
            state = _state(task)
            if state in _AT_REST:
                continue
            with open(f"{task}/syscall") as file:
                does = _does(file.read().split()) if state == _WAITS else RUNS
        except PermissionError:
            return CANNOT_BE_TOLD
        except FileNotFoundError:
            if os.path.exists(task):
                return CANNOT_BE_TOLD  # a system without these files
            continue
        if does:
            return does
    return HAS_A_TIMER if _has_timers(pid) else ""


def _state(task: str) -> str:
    with open(f"{task}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0].decode()


def _does(words: list[str]) -> str:
    """What a thread does, of which the kernel says this; empty where it waits for others."""
    number = int(words[0]) if words[0].isdigit() else -1  # "running", or not in a call
    if number not in _CALLS:
        return HAS_A_TIMER if number in _SLEEPS else RUNS
    if (timeout := _CALLS[number]) is None:
        return ""
    argument, none = timeout
    given = int(words[1 + argument], 16)
    if none == _MINUS_ONE:
        given &= _MINUS_ONE
    return "" if given == none else HAS_A_TIMER


def _has_timers(pid: int) -> bool:
    """Whether it has a timer that the kernel keeps for it."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/timers") as file:
        if file.read(1):
            return True
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"{folder}/{fd}") == "anon_inode:[timerfd]":
                return True
    return False


def _called(pid: int, kernels: Mapping[int, str]) -> str:
    if pid in kernels:
        return f"the kernel {kernels[pid]}"
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read(MAX_COMMAND).replace(b"\0", b" ").strip()
    return f"{words.decode('utf-8', 'replace')!r} (pid {pid})"
