"""Why a cell or command has failed, as far as that is known, and what can be done about it.

A table: each row knows the signs of one cause, in the error, in what was written last, or in how
the process ended, and says what to do about it under the policy of the session. The first row that
has something to say is heard; a cause of which there is no sign is not told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sandbox.commands.models import CommandResult
from sandbox.kernels.answers import OUT_OF_MEMORY
from sandbox.kernels.evidence import PATHS, Place
from sandbox.kernels.models import ExecutionResult
from sandbox.policy import Policy
from sandbox.policy.units import format_size
from sandbox.server.failures import BROKEN, KILLED, Seen, said_of, seen_of_command

UNDER_MEMORY = "work on smaller pieces (chunksize=, del what is done with, float32)"


Remedy = Callable[[Seen], str]
"""What to say of a cause; empty where there is no sign of it."""


def remedy_for(result: ExecutionResult, seen: Seen) -> str:
    """What to do about a cell that failed; empty where that is not known."""
    return _first(TABLES.get(result.status, ()), seen)


def remedy_for_command(result: CommandResult, policy: Policy, others: Sequence[Policy]) -> str:
    """The same of a command."""
    if not result.exit_code and result.status != "signalled":
        return ""
    seen = seen_of_command(result, policy, others)
    return _first(DEATHS if result.reason == OUT_OF_MEMORY else FAILURES, seen)


def is_told_by_evidence(result: ExecutionResult) -> bool:
    """Whether it takes a look into the sandbox to say why a cell failed."""
    if result.status == "timeout":
        return True
    signs = f"{_NO_ROOM}|{BROKEN}|{KILLED}"
    return result.status == "error" and re.search(signs, said_of(result)) is not None


def _first(table: Sequence[Remedy], seen: Seen) -> str:
    return next(filter(None, (row(seen) for row in table)), "")


# --- filesystems

_NO_ROOM = (
    r"\[Errno (?:28|122)\]|No space left on device|Disk quota exceeded|"
    r"database or disk is full|ENOSPC|EDQUOT"
)
_SHARED = (
    rf"{PATHS['shm']}|shared_memory\.py|shared memory|unable to (?:mmap|open|write to) .*\btorch_|"
    r"_posixshmem"
)


def _is_no_room(line: str) -> bool:
    return re.search(_NO_ROOM, line) is not None


def _size(policy: Policy, place: Place) -> int:
    sizes: dict[Place, int] = {
        "workspace": policy.workspace.size_bytes,
        "tmp": policy.tmp.size_bytes,
        "shm": policy.shm_bytes,
    }
    return sizes[place]


def _full_shared_memory(seen: Seen) -> str:
    bus = seen.reason.startswith("It was ended by SIGBUS") or seen.has(r"[Bb]us error")
    refused = seen.has(_NO_ROOM) and (seen.has(_SHARED) or tuple(seen.evidence.full) == ("shm",))
    if not (bus or refused):
        return ""
    size = format_size(seen.policy.shm_bytes)
    is_known = refused or seen.has(_SHARED) or PATHS["shm"] in seen.reason
    cause = (
        "Shared memory (/dev/shm) is full: it"
        if is_known
        else "Memory was touched that is mapped from a file without room or shorter than that, as "
        "when shared memory is full: /dev/shm"
    )
    return (
        f"{cause} holds {size} under the policy {seen.policy.name}. Share smaller pieces, release "
        "them (shm.close(), shm.unlink()), use fewer workers (DataLoader(num_workers=0)), or keep "
        f"large arrays in files of /workspace (numpy.memmap)"
        f"{seen.roomier(lambda policy: policy.shm_bytes)}."
    )


def _full_filesystem(seen: Seen) -> str:
    if not seen.has(_NO_ROOM):
        return ""
    policy = seen.policy
    lines = [line for line in f"{seen.error}\n{seen.written}".split("\n") if _is_no_room(line)]
    named: list[Place] = [
        at for at, path in PATHS.items() if any(f"'{path}/" in line for line in lines)
    ]
    places = named or list(seen.evidence.full)
    if not places:
        sizes = (
            f"{path} holds {format_size(_size(policy, place))}" for place, path in PATHS.items()
        )
        return (
            f"A filesystem had no room left: {', '.join(sizes)} under the policy {policy.name}. "
            "Delete what is not needed, or write less."
        )
    place = places[0]
    path = PATHS[place]
    if seen.evidence.full.get(place) == "inodes":
        inodes = policy.workspace.inodes if place == "workspace" else policy.tmp.inodes
        return (
            f"{path} holds no more files: {inodes:,} are the most under the policy {policy.name}. "
            "Delete what is not needed, or keep many small files in one (zip, SQLite, Parquet)."
        )
    size = format_size(_size(policy, place))
    more = seen.roomier(lambda policy: _size(policy, place))
    return (
        f"{path} is full; it holds {size} under the policy {policy.name}. Delete what is not "
        f"needed (`du -ah {path} | sort -h | tail`) or write less{more}."
    )


def _large_file(seen: Seen) -> str:
    if not seen.has(r"\[Errno 27\]|File too large|File size limit exceeded|SIGXFSZ"):
        return ""
    size = format_size(seen.policy.limits.file_size_bytes)
    return (
        f"A file may have {size} under the policy {seen.policy.name}: write several smaller ones."
    )


_OUTSIDE = r"'/(?!(?:workspace|tmp|dev|proc)/)[^'\n]{1,4096}'"
_REFUSED_OUTSIDE = rf"\[Errno 13\] Permission denied: {_OUTSIDE}|{_OUTSIDE}: Permission denied"
"""So gVisor refuses what Linux calls a read-only file system."""


def _read_only(seen: Seen) -> str:
    if not seen.has(rf"\[Errno 30\]|Read-only file system|{_REFUSED_OUTSIDE}"):
        return ""
    return "Only /workspace, /tmp and /dev/shm can be written here: write below /workspace."


def _open_files(seen: Seen) -> str:
    if not seen.has(r"\[Errno 24\]|Too many open files"):
        return ""
    most = seen.policy.limits.open_files
    return (
        f"A process may have {most:,} files and sockets open under the policy {seen.policy.name}: "
        "close them (`with open(...)`), or open fewer at once."
    )


# --- processes and memory

_NO_PROCESS = (
    r"can't start new thread|[Ff]ork: (?:retry: )?Resource temporarily unavailable|Cannot fork|"
    r"pthread_create failed|unable to create new native thread|No further process can be started"
)
_CELL_NAME = r"Can't get attribute '([\w.<>]{1,80})' on <module '__main__'"


def _no_process(seen: Seen) -> str:
    refused = seen.has(r"\[Errno 11\] Resource temporarily unavailable") and seen.has(
        r"\bfork|spawn"
    )
    if not (refused or seen.has(_NO_PROCESS)):
        return ""
    most = seen.policy.limits.pids
    return (
        f"No more processes or threads can be started: {most} are the most under the policy "
        f"{seen.policy.name}, all of the session's together. Use fewer workers (processes=2, "
        "n_jobs=2, max_workers=4) and end those that are done (close and join pools); "
        "restart_kernel ends what the kernel has started."
    )


def _lost_function(seen: Seen) -> str:
    found = re.search(_CELL_NAME, seen.error) or re.search(_CELL_NAME, seen.written)
    if found is None:
        return ""
    return (
        f"{found[1]!r} is defined in a cell, where a process that does not begin as a copy of the "
        "kernel cannot find it. Put it into a file (`%%writefile work.py`) and import it, or make "
        "the pool after it is defined, with multiprocessing.get_context('fork')."
    )


def _killed_for_memory(seen: Seen) -> str:
    """A process of the cell's, not the kernel itself."""
    evidence = seen.evidence
    if not evidence.ran_out_of_memory:
        return ""
    size = format_size(seen.policy.limits.memory_bytes)
    count, whose = evidence.oom_kills, "session" if evidence.oom_own else "machine"
    words = "1 process of this {} was" if count == 1 else f"{count} processes of this {{}} were"
    return (
        f"{words.format(whose)} killed meanwhile because memory ran out; the session has {size}, "
        f"files included. Use fewer workers, or {UNDER_MEMORY}{seen.roomier(_memory)}."
    )


def _broken_pool(seen: Seen) -> str:
    if not seen.has(BROKEN):
        return ""
    known = "no process was killed for want of memory" if seen.evidence.oom_kills == 0 else ""
    return (
        f"A worker of the pool ended before its work was done{f'; {known}' if known else ''}. It "
        "crashed in compiled code or called os._exit: run what it does in the kernel itself to see."
    )


def _no_memory(seen: Seen) -> str:
    if not seen.has(r"(?:^|\n)(?:\w+\.)*_?(?:Array)?MemoryError\b|Cannot allocate memory"):
        return ""
    return _memory_words(seen)


def _died_of_memory(seen: Seen) -> str:
    return _memory_words(seen) if seen.reason.startswith(OUT_OF_MEMORY) else ""


def _memory_words(seen: Seen) -> str:
    size = format_size(seen.policy.limits.memory_bytes)
    more = seen.roomier(_memory)
    start = UNDER_MEMORY[0].upper() + UNDER_MEMORY[1:]
    return f"The session has {size} of memory, files included. {start}{more}."


def _memory(policy: Policy) -> int:
    return policy.limits.memory_bytes


def _crashed(seen: Seen) -> str:
    found = re.match(r"It was ended by SIG(SEGV|ABRT|ILL|FPE)\.", seen.reason)
    if found is None:
        return ""
    recursion = ", or recursion beyond its stack (sys.setrecursionlimit)" * (found[1] == "SEGV")
    return f"That is a crash in compiled code{recursion}, which Python cannot catch."


def _too_deep(seen: Seen) -> str:
    if not seen.error.startswith("RecursionError"):
        return ""
    return (
        "A function calls itself without an end, or deeper than Python's limit: write a loop, or "
        "raise it with care (sys.setrecursionlimit); too high a limit crashes the kernel."
    )


# --- what needs somebody, or something, that is not here

_NO_DISPLAY = (
    r"no display name and no \$DISPLAY|couldn't connect to display|could not connect to display|"
    r"cannot (?:connect to X server|open display)|No available video device|"
    r"interactive framework, as 'headless' is currently running|No module named '_?tkinter|"
    r"Qt platform plugin|function is not implemented\. Rebuild the library with"
)


def _no_display(seen: Seen) -> str:
    if not seen.has(_NO_DISPLAY):
        return ""
    return (
        "There is no display here, so no window opens. With matplotlib leave matplotlib.use(...) "
        "out: plt.show() puts the picture into the result. Else save a picture, and show it with "
        "IPython.display.Image(filename=...)."
    )


def _running_loop(seen: Seen) -> str:
    if seen.has(r"asyncio\.run\(\) cannot be called from a running event loop"):
        return "Write `await main()` in place of asyncio.run(main()): a cell may await."
    if seen.has(r"This event loop is already running|Cannot run the event loop while another"):
        return "Write `await ...` in place of run_until_complete(...): a cell may await."
    return ""


def _no_input(seen: Seen) -> str:
    if not seen.has(r"EOFError: EOF when reading a line"):
        return ""
    return "It asked for input, and there was none: give it as stdin, or as an argument."


FAILURES: tuple[Remedy, ...] = (
    _full_shared_memory,
    _full_filesystem,
    _large_file,
    _read_only,
    _open_files,
    _no_process,
    _lost_function,
    _killed_for_memory,
    _broken_pool,
    _no_memory,
    _too_deep,
    _no_display,
    _running_loop,
    _no_input,
)
"""Of what has raised, run out of time or exited."""
DEATHS: tuple[Remedy, ...] = (_full_shared_memory, _died_of_memory, _crashed)
"""Of kernels and commands that were ended."""
TABLES = {"error": FAILURES, "timeout": FAILURES, "died": DEATHS}
