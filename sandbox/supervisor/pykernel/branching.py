"""Branches and checkpoints of a kernel, in its own process: forks of it that live or are frozen.

The supervisor asks for one and hands over the descriptors that are to be the fork's. What cannot
carry over is looked for first; the fork becomes a kernel of its own before anybody hears of it, so
that whatever fails leaves the kernel as it was and nothing beside it.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import random
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.supervisor.pykernel import blockers, forkedloops, openfiles, pools, sharedmemory
from sandbox.supervisor.pykernel.blockers import Blocker
from sandbox.supervisor.pykernel.forking import ForkFailed, fork_orphan
from sandbox.supervisor.restraint import take_mark

_MAX_REQUEST = 4096
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_COLLECTABLE = frozenset(("socket", "open file", "database", "pipe", "shared memory", "descriptor"))

_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class KernelPlace:
    """What of a kernel a fork of it must have anew."""

    descriptors: Mapping[int, int]
    """Those to the supervisor: for each which of the new ones takes its place: 0 the pair, 1 what
    it prints, 2 its errors."""
    loop: Any
    """Its event loop."""
    flush: Callable[[], object]
    """Sends all that waits to be sent or printed."""
    begin: Callable[[], object]
    """In the fork: forgets what was received and not yet done, and whose process it was."""


@dataclass(frozen=True, slots=True)
class Fork:
    """What was found before a fork, to make its process a kernel of its own."""

    place: KernelPlace
    loops: tuple[Any, ...]
    files: tuple[openfiles.OpenFile, ...]
    regions: tuple[sharedmemory.SharedRegion, ...]
    timers: tuple[tuple[float, float], ...]
    chance: object
    """The state of ``random``, which Python itself changes in every fork."""

    def make_own(self, mark: int) -> None:
        """In the fork: a session, mark and all else of its own, with nothing shared."""
        os.setsid()
        take_mark(mark)
        for each in (*self.files, *self.regions):
            each.make_own()
        threading.main_thread()._set_native_id()  # type: ignore[attr-defined]  # Python keeps the old
        random.setstate(self.chance)  # type: ignore[arg-type]  # it is what getstate() returned

    def live(self, mark: int, fds: list[int], *, reseed: bool) -> None:
        """In the fork: become a live kernel on these descriptors."""
        self._replace(fds)
        self.make_own(mark)
        for loop in self.loops:
            forkedloops.make_own(loop, self.place.descriptors)
        for which, (left, interval) in zip(_TIMERS, self.timers, strict=True):
            signal.setitimer(which, left, interval)
        if reseed:
            _reseed()
        self.place.begin()

    def freeze(self, mark: int) -> None:
        """In the fork: have nothing of the kernel that somebody could miss or wait for."""
        null = os.open(os.devnull, os.O_RDWR)
        self._replace([null, null, null])
        self.make_own(mark)

    def _replace(self, fds: list[int]) -> None:
        # First beyond all targets, some of which Python closes in a fork: none is in the way.
        beyond = max(self.place.descriptors) + 1
        sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond) for fd in fds]
        _close(fds)
        for fd, which in self.place.descriptors.items():
            os.dup2(sources[which], fd, inheritable=fd in (1, 2))
        _close(sources)


def handle_branch(
    request: Mapping[str, Any], fds: list[int], place: KernelPlace
) -> dict[str, Any] | None:
    """Do what the supervisor asks: ``{"branch": "live" | "frozen", "mark": …, "reseed": …}``.

    Args:
        fds: For a live branch its pair, stdout and stderr; for a frozen one the socket on which it
            hears what becomes of it. They are closed here.

    Returns:
        What to answer: ``{"branched": pid}``; ``{"blockers": […]}``, each with ``kind``, ``what``
        and ``remedy``; or ``{"failed": why}``. None in the branch itself, which goes on as the
        kernel, at once or when it is thawed.
    """
    live, mark = request.get("branch") == "live", int(request["mark"])
    if _is_given_up(fds[0]):
        _close(fds)
        return {"failed": "Whoever asked for it has given up."}
    place.flush()
    _libc.fflush(None)
    found, fork = _survey(place, fds)
    if found:
        _close(fds)
        return {"blockers": blockers.described(found)}

    def become() -> None:
        if live:
            fork.live(mark, fds, reseed=bool(request.get("reseed", True)))
        else:
            fork.freeze(mark)

    try:
        pid = fork_orphan(become)
    except (ForkFailed, OSError) as exc:
        _close(fds)
        return {"failed": str(exc)}
    if pid:
        _close(fds)
        return {"branched": pid}
    if not live:
        _stay_frozen(fork, fds[0])
    return None


def _stay_frozen(fork: Fork, control: int) -> None:
    """Wait for what becomes of this process; returns in a live branch of it only."""
    with socket.socket(fileno=control) as end:
        while True:
            data, fds, _, _ = socket.recv_fds(end, _MAX_REQUEST, 3)
            if not data:
                os._exit(0)
            request = json.loads(data)

            def become(request: dict[str, Any] = request, fds: list[int] = fds) -> None:
                fork.live(int(request["mark"]), fds, reseed=bool(request.get("reseed", False)))

            try:
                pid = fork_orphan(become)
            except (ForkFailed, OSError) as exc:
                answer: dict[str, Any] = {"failed": str(exc)}
            else:
                if not pid:
                    return
                answer = {"branched": pid}
            _close(fds)
            end.send(json.dumps(answer).encode())


def _survey(place: KernelPlace, fds: list[int]) -> tuple[list[Blocker], Fork]:
    """What is in the way of a fork, and what it will need if nothing is."""
    pools.drain()
    found, fork = _look(place, fds, thorough=False)
    if any(each.kind in _COLLECTABLE for each in found):
        gc.collect()  # what nobody can reach any more is in nobody's way
        found, fork = _look(place, fds, thorough=True)
    return found, fork


def _look(place: KernelPlace, fds: list[int], *, thorough: bool) -> tuple[list[Blocker], Fork]:
    loops = forkedloops.find(place.loop, thorough=thorough)
    own = {0, *place.descriptors, *fds, *forkedloops.descriptors(loops)}
    files, in_files = openfiles.survey(own, forkedloops.watched(loops))
    regions, in_memory = sharedmemory.survey()
    found = [
        *blockers.threads(),
        *blockers.processes(),
        *in_files,
        *in_memory,
        *blockers.interpreters(),
    ]
    timers = tuple(signal.getitimer(which) for which in _TIMERS)
    state = random.getstate()
    return found, Fork(place, tuple(loops), tuple(files), tuple(regions), timers, state)


def _reseed() -> None:
    """Let what is drawn by chance be another than on the other side."""
    random.seed()
    numbers: Any = sys.modules.get("numpy.random")
    if numbers is not None:
        numbers.seed()


def _is_given_up(end: int) -> bool:
    """Whether the other end of a pair is closed already."""
    poll = select.poll()
    poll.register(end, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _close(fds: list[int]) -> None:
    for fd in set(fds):
        os.close(fd)
