"""The orders ``carry_out`` and ``carry_in``: a kernel's variables, to and from another kernel.

They are written by a fork of the kernel, which has them as they were at that moment. So whatever
writing a value does, or breaks, is done to the fork, and the kernel goes on at once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import resource
import signal
import time
from functools import partial
from typing import Any, NoReturn

from sandbox.supervisor.pykernel.forking import fork_orphan
from sandbox.supervisor.pykernel.stateframes import UnreadStateError
from sandbox.supervisor.pykernel.statereader import read_state
from sandbox.supervisor.pykernel.statewriter import Bounds, write_state

SPARE_S = 10.0
"""What the fork may compute beside its time for all names; then it is ended, whatever it is in."""
_NOBODYS = re.compile(r"_+|_i+|_i?[0-9]+|_ih|_oh|_dh|In|Out|__.*__")
"""Names of the history, and those that Python gives to every module."""


def install(shell: Any) -> None:
    """Have a shell's kernel follow the orders."""
    shell.kernel.orders["carry_out"] = partial(_carry_out, shell)
    shell.kernel.orders["carry_in"] = partial(_carry_in, shell)


def names_of(shell: Any) -> list[str]:
    """The names that cells have bound, in their order."""
    hidden: dict[str, Any] = shell.user_ns_hidden
    absent = object()
    return [
        name
        for name, value in shell.user_ns.items()
        if type(name) is str
        and hidden.get(name, absent) is not value
        and not _NOBODYS.fullmatch(name)
    ]


def _carry_out(shell: Any, order: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Begin to write to a descriptor, in a fork."""
    (fd,) = fds
    bounds = Bounds(int(order["total_bytes"]), float(order["name_s"]), float(order["total_s"]))
    try:
        if not fork_orphan(lambda: None):
            _write(shell, fd, bounds)
    finally:
        os.close(fd)
    return {}


def _write(shell: Any, fd: int, bounds: Bounds) -> NoReturn:
    """Be the process that writes."""
    code = 1
    try:
        gc.disable()  # what is collected here may do what the kernel's own objects are to do
        null = os.open(os.devnull, os.O_RDWR)
        for target in (1, 2):
            os.dup2(null, target)
        shell.kernel.control_stream.pair.leave()
        for number in (signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(OSError, ValueError):
            usage = resource.getrusage(resource.RUSAGE_SELF)
            most = int(usage.ru_utime + usage.ru_stime + bounds.total_s + SPARE_S)
            resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        write_state(shell.user_ns, names_of(shell), fd, bounds, time.monotonic)
        code = 0
    except UnreadStateError:
        pass
    finally:
        os._exit(code)


def _carry_in(shell: Any, order: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Load what comes over a descriptor, to its end."""
    (fd,) = fds
    try:
        return read_state(shell.user_ns, fd, float(order["name_s"])).told()
    finally:
        os.close(fd)
