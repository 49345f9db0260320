"""What of a kernel a fork of it would not have: found before the fork, and named."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from types import FrameType

from sandbox.supervisor.pykernel import nativethreads
from sandbox.supervisor.restraint import mark_of

ENDING_S = 0.1
"""So long a thread may take that was told to end, or has ended for Python."""
MAX_BLOCKERS = 20
_MAX_CHARS = 200
_STANDARD = os.path.dirname(os.__file__)


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that does not carry over."""

    kind: str
    what: str
    """It by its name, for a person."""
    remedy: str
    """What to do about it."""


def described(found: Iterable[Blocker]) -> list[dict[str, str]]:
    """Blockers as a message has them, within bounds."""
    first = list(found)[:MAX_BLOCKERS]
    return [{key: text[:_MAX_CHARS] for key, text in asdict(each).items()} for each in first]


def threads() -> list[Blocker]:
    """Threads beside this one, of Python and of libraries; those that are ending are waited for."""
    until = time.monotonic() + ENDING_S
    while (found := [*_python_threads(), *_native_threads()]) and time.monotonic() < until:
        if any(each.kind == "thread" for each in found):
            break
        time.sleep(0.001)
    return found


def processes() -> list[Blocker]:
    """Processes that this one has started, wherever they are."""
    return list(_processes())


def interpreters() -> list[Blocker]:
    """Interpreters of Python beside the main one."""
    subinterpreters = sys.modules.get("_xxsubinterpreters")
    if subinterpreters is None:
        return []
    remedy = "close it with its destroy()"
    return [
        Blocker("interpreter", f"the subinterpreter {int(each)}", remedy)
        for each in subinterpreters.list_all()
        if each != subinterpreters.get_main()
    ]


def _python_threads() -> Iterator[Blocker]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage]  # it is public
        if ident != threading.get_ident():
            name = names.get(ident, "without a name")
            yield Blocker(
                "thread",
                f"the thread {name!r} (ident {ident}) at {_where(frame)}",
                "let it end and join() it, or shut down the pool that it belongs to",
            )


def _where(frame: FrameType) -> str:
    """Where a thread is, in code that is not Python's own if there is such."""
    at: FrameType | None = frame
    while at is not None and at.f_code.co_filename.startswith((_STANDARD, "<frozen")):
        at = at.f_back
    at = at or frame
    return f"{at.f_code.co_filename}:{at.f_lineno} in {at.f_code.co_name}"


def _native_threads() -> Iterator[Blocker]:
    # In a fork Python may still know the main thread by the number that it had before.
    known = {threading.get_native_id(), *(each.native_id for each in threading.enumerate())}
    for native in nativethreads.unsafe(known):
        yield Blocker("native thread", native.description, native.remedy)


def _processes() -> Iterator[Blocker]:
    own = os.getpid()
    for pid in sorted(_children(own) | _marked(own)):
        with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
            state, parent = _stat(pid)
            if state not in ("Z", "X"):
                yield Blocker(
                    "process",
                    f"the process {pid} that was started here: {_command(pid)}",
                    "wait until it has ended, or end it",
                )
            elif parent == own:
                yield Blocker(
                    "process",
                    f"the child process {pid}, which has ended and was not waited for",
                    f"wait for it, with its wait() or os.waitpid({pid}, 0)",
                )


def _children(own: int) -> set[int]:
    try:
        found: set[int] = set()
        for tid in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{tid}/children") as file:
                found.update(map(int, file.read().split()))
        return found
    except OSError:  # a system without these files
        return {pid for pid in _all(own) if _parent(pid) == own}


def _marked(own: int) -> set[int]:
    """Those that carry this process's mark, wherever they are."""
    mark = mark_of(own)
    return set() if mark == resource.RLIM_INFINITY else {p for p in _all(own) if _mark(p) == mark}


def _all(own: int) -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own)


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        return _stat(pid)[1]
    return 0


def _mark(pid: int) -> int:
    with contextlib.suppress(OSError):
        return mark_of(pid)
    return 0


def _stat(pid: int) -> tuple[str, int]:
    with open(f"/proc/{pid}/stat", "rb") as file:
        state, parent = file.read().decode("latin-1").rpartition(")")[2].split()[:2]
    return state, int(parent)


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read(4096).decode("utf-8", "replace").replace("\0", " ").strip()
    return repr(words[:100])
