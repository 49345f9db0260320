"""A fork that is nobody's child here: the supervisor is told of its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable

from sandbox.supervisor.pykernel import vforking

PATIENCE_S = 10.0
_MAX_ANSWER = 4096


class ForkFailed(Exception):
    """There is no fork; says why."""


def fork_orphan(become: Callable[[], None]) -> int:
    """Fork this process through another that ends at once, so that the fork has no parent here.

    Args:
        become: Run in the fork before anybody hears of it; if it fails, there is no fork.

    Returns:
        The fork's number; 0 in the fork itself.

    Raises:
        ForkFailed: There is no fork; says why.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return _fork(become)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork(become: Callable[[], None]) -> int:
    try:
        reading, writing = os.pipe()
    except OSError as exc:
        raise ForkFailed(f"No pipe can be made: {exc.strerror}.") from exc
    try:
        between, is_fork = _fork_through()
    except OSError as exc:
        os.close(reading)
        os.close(writing)
        raise ForkFailed(f"No further process can be started: {exc.strerror}.") from exc
    if is_fork:
        os.close(reading)
        return _begin(writing, become)
    os.close(writing)
    try:
        answer = _answer(reading)
    finally:
        os.close(reading)
        status = 0
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(between, 0)
    pid, _, problem = answer.partition(" ")
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        problem = "No further process can be started."
    if problem or not pid.isdigit():
        raise ForkFailed(problem or "The fork ended before it was ready.")
    return int(pid)


def _fork_through() -> tuple[int, bool]:
    """Fork, and fork again; returns the number of the first, and whether this is the second.

    Where it can be, the first borrows this process's memory, so that the second alone has to be
    given tables of its pages: with gigabytes in small pages those are most of what a fork costs.

    Raises:
        OSError: The first cannot be made.
    """
    if (borrowed := vforking.fork_through()) is not None:
        return borrowed
    if between := os.fork():
        return between, False
    try:
        if os.fork() == 0:
            return 0, True
    except OSError:
        os._exit(1)
    os._exit(0)


def _begin(writing: int, become: Callable[[], None]) -> int:
    try:
        become()
    except BaseException as exc:  # whatever it is, this process must not go on as the kernel
        _tell(writing, f"0 {type(exc).__name__}: {exc}")
        os._exit(1)
    _tell(writing, f"{os.getpid()} ")
    os.close(writing)
    return 0


def _tell(writing: int, answer: str) -> None:
    with contextlib.suppress(OSError):
        os.write(writing, answer.encode("utf-8", "replace")[:_MAX_ANSWER])


def _answer(reading: int) -> str:
    """What the fork says once it has begun; empty when it says nothing in time."""
    until = time.monotonic() + PATIENCE_S
    ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
    return os.read(reading, _MAX_ANSWER).decode("utf-8", "replace") if ready else ""
