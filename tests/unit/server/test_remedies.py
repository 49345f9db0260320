"""The causes of failures, told by their signs: each row of the table with errors as they are."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

import pytest

from sandbox.commands.models import CommandResult
from sandbox.kernels.answers import cause_of
from sandbox.kernels.evidence import Evidence
from sandbox.kernels.models import ExecutionError, ExecutionResult
from sandbox.policy import Policy, load
from sandbox.server.failures import NOTHING, seen_in
from sandbox.server.remedies import (
    DEATHS,
    FAILURES,
    is_told_by_evidence,
    remedy_for,
    remedy_for_command,
)

from ...support.results import result, stream

POLICIES = load()
OFFLINE = POLICIES.get("offline")
ALL = [POLICIES.get(name) for name in POLICIES.names()]
MEMORY = Evidence(oom_kills=1, oom_own=True)
INTERRUPTED = ExecutionError(name="KeyboardInterrupt", value="", traceback="")
POOL = "A process in the process pool was terminated abruptly while the future was running."
TORCH = (
    "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
    "workers are out of shared memory. Please try to raise your shared memory limit."
)


def failed(name: str, value: str, traceback: str = "", stderr: str = "") -> ExecutionResult:
    """A cell that ended in an error."""
    outputs = [stream(stderr, "stderr")] if stderr else []
    error = ExecutionError(name=name, value=value, traceback=traceback)
    return result(*outputs, status="error", error=error)


def died(number: signal.Signals, *, is_oom: bool = False, **event: Any) -> ExecutionResult:
    """A cell whose kernel was ended."""
    reason = cause_of({"signal": int(number), "exit_code": None, **event}, is_oom=is_oom)
    return result(status="died", state="lost", reason=reason)


def raised(number: int, *path: str) -> ExecutionResult:
    """A cell that ended in an error of the system's."""
    exc = OSError(number, os.strerror(number), *path)
    return failed(type(exc).__name__, str(exc))


def told(
    failure: ExecutionResult,
    policy: Policy = OFFLINE,
    evidence: Evidence = NOTHING,
    others: list[Policy] = ALL,
) -> str:
    return remedy_for(failure, seen_in(failure, policy, evidence, others))


def full(**places: str) -> Evidence:
    return Evidence.model_validate({"full": places})


ROWS: list[tuple[ExecutionResult, Evidence, tuple[str, ...]]] = [
    # shared memory
    (died(signal.SIGBUS, full={"shm": "bytes"}), NOTHING, ("/dev/shm) is full", "64MiB", "unlink")),
    (died(signal.SIGBUS, full={}), NOTHING, ("as when shared memory is full: /dev/shm", "64MiB")),
    (
        failed("OSError", "[Errno 28] No space left on device", 'File "/usr/lib/shared_memory.py"'),
        NOTHING,
        ("Shared memory (/dev/shm) is full",),
    ),
    (raised(errno.ENOSPC, "/dev/shm/x"), NOTHING, ("Shared memory (/dev/shm) is full",)),
    (raised(errno.ENOSPC), full(shm="bytes"), ("Shared memory (/dev/shm) is full",)),
    (failed("RuntimeError", TORCH), NOTHING, ("Shared memory", "num_workers=0")),
    (
        failed(
            "RuntimeError", "unable to write to file </torch_7_1>: No space left on device (28)"
        ),
        NOTHING,
        ("Shared memory (/dev/shm) is full", "512MiB"),
    ),
    # filesystems
    (raised(errno.ENOSPC, "/tmp/a b"), NOTHING, ("/tmp is full", "128MiB", "du -ah /tmp")),
    (raised(errno.ENOSPC, "x.csv"), full(workspace="bytes"), ("/workspace is full", "512MiB")),
    (raised(errno.ENOSPC), full(tmp="inodes"), ("/tmp holds no more files", "16,384")),
    (
        raised(errno.ENOSPC, "/workspace/x"),
        full(workspace="inodes"),
        ("/workspace holds no more files", "65,536"),
    ),
    (raised(errno.ENOSPC), NOTHING, ("/workspace holds 512MiB", "/tmp holds 128MiB")),
    (raised(errno.EDQUOT, "/workspace/x"), NOTHING, ("/workspace is full",)),
    (
        failed("OperationalError", "database or disk is full"),
        full(workspace="bytes"),
        ("/workspace is full",),
    ),
    (raised(errno.EFBIG), NOTHING, ("A file may have 512MiB",)),
    (raised(errno.EROFS, "/etc/x"), NOTHING, ("write below /workspace",)),
    (raised(errno.EACCES, "/etc/x"), NOTHING, ("write below /workspace",)),
    (raised(errno.EMFILE, "x"), NOTHING, ("1,024 files and sockets",)),
    # processes
    (
        failed("BlockingIOError", "[Errno 11] Resource temporarily unavailable", "os.fork()"),
        NOTHING,
        ("256 are the most", "n_jobs=2"),
    ),
    (failed("RuntimeError", "can't start new thread"), NOTHING, ("256 are the most",)),
    (
        failed(
            "CalledProcessError",
            "returned",
            stderr="bash: fork: retry: Resource temporarily unavailable",
        ),
        NOTHING,
        ("256 are the most",),
    ),
    (
        failed(
            "BrokenProcessPool",
            POOL,
            stderr="AttributeError: Can't get attribute 'own' on <module '__main__' (built-in)>",
        ),
        NOTHING,
        ("'own' is defined in a cell", "%%writefile"),
    ),
    (failed("BrokenProcessPool", POOL), MEMORY, ("1 process of this session was killed", "1GiB")),
    (
        failed("BrokenProcessPool", POOL),
        Evidence(oom_kills=2),
        ("2 processes of this machine were killed",),
    ),
    (
        failed("BrokenProcessPool", POOL),
        Evidence(oom_kills=0),
        ("no process was killed for want of memory", "crashed"),
    ),
    (failed("BrokenProcessPool", POOL), NOTHING, ("ended before its work was done",)),
    (
        failed("CalledProcessError", "Command '['x']' died with <Signals.SIGKILL: 9>."),
        MEMORY,
        ("because memory ran out",),
    ),
    (result(status="timeout"), MEMORY, ("because memory ran out",)),
    # memory
    (failed("MemoryError", ""), NOTHING, ("The session has 1GiB", "open_session(policy=")),
    (
        failed("_ArrayMemoryError", "Unable to allocate 74.5 GiB for an array with shape (9,)"),
        NOTHING,
        ("The session has 1GiB",),
    ),
    (died(signal.SIGKILL, is_oom=True), NOTHING, ("The session has 1GiB of memory",)),
    # crashes
    (died(signal.SIGSEGV), NOTHING, ("crash in compiled code, or recursion",)),
    (died(signal.SIGABRT), NOTHING, ("crash in compiled code, which",)),
    (failed("RecursionError", "maximum recursion depth exceeded"), NOTHING, ("calls itself",)),
    # what is not here
    (
        failed("TclError", "no display name and no $DISPLAY environment variable"),
        NOTHING,
        ("no display here", "plt.show()"),
    ),
    (failed("ModuleNotFoundError", "No module named '_tkinter'"), NOTHING, ("no display here",)),
    (
        failed(
            "ImportError",
            "Cannot load backend 'TkAgg' which requires the 'tk' interactive framework, as "
            "'headless' is currently running",
        ),
        NOTHING,
        ("no display here",),
    ),
    (
        failed("RuntimeError", "asyncio.run() cannot be called from a running event loop"),
        NOTHING,
        ("`await main()`",),
    ),
    (failed("RuntimeError", "This event loop is already running"), NOTHING, ("`await ...`",)),
]


@pytest.mark.parametrize(
    ("failure", "evidence", "words"), ROWS, ids=[str(number) for number in range(len(ROWS))]
)
def test_a_cause_is_told_by_its_signs(
    failure: ExecutionResult, evidence: Evidence, words: tuple[str, ...]
) -> None:
    said = told(failure, evidence=evidence)
    for word in words:
        assert word in said
    assert len(said) < 500


def test_every_row_of_the_tables_is_tried() -> None:
    heard = {
        next(row.__name__ for row in table if row(seen))
        for failure, evidence, _ in ROWS
        for table in (DEATHS if failure.status == "died" else FAILURES,)
        for seen in (seen_in(failure, OFFLINE, evidence, ALL),)
    }
    by_commands = {"_no_input"}
    assert heard | by_commands == {row.__name__ for row in (*FAILURES, *DEATHS)}


@pytest.mark.parametrize(
    "failure",
    [
        failed("ValueError", "No"),
        failed("ValueError", "x", stderr="bash: fork: Cannot fork\nRead-only file system"),
        failed("BlockingIOError", "[Errno 11] Resource temporarily unavailable", "sock.recv(1)"),
        failed("CalledProcessError", "Command 'false' returned non-zero exit status 1."),
        raised(errno.ENOENT, "/nowhere"),
        raised(errno.EACCES, "/workspace/closed"),
        died(signal.SIGKILL),
        died(signal.SIGTERM),
        result(status="timeout"),
        result(
            status="interrupted",
            error=ExecutionError(name="KeyboardInterrupt", value="", traceback=""),
        ),
        result(stream("[Errno 28] No space left on device", "stderr")),
    ],
)
def test_nothing_is_told_without_a_sign(failure: ExecutionResult) -> None:
    assert told(failure) == ""


def test_a_roomier_policy_is_told_to_those_who_may_name_it() -> None:
    failure = failed("MemoryError", "")
    assert "open_session(policy=" in told(failure)
    assert "open_session" not in told(failure, others=[OFFLINE])
    assert "open_session" not in told(failure, policy=POLICIES.get("datascience"))


def test_somebody_looks_into_the_sandbox_only_where_that_tells_something() -> None:
    assert is_told_by_evidence(raised(errno.ENOSPC))
    assert is_told_by_evidence(failed("BrokenProcessPool", POOL))
    assert is_told_by_evidence(result(status="timeout"))
    assert not is_told_by_evidence(failed("ValueError", "x"))
    assert not is_told_by_evidence(died(signal.SIGBUS))
    assert not is_told_by_evidence(result())


def test_what_a_cell_writes_is_repeated_as_a_name_only() -> None:
    hostile = "Can't get attribute '`rm -rf /`' on <module '__main__'"
    assert "rm" not in told(failed("AttributeError", hostile))


def ran(stderr: str, exit_code: int | None = 1, **fields: Any) -> CommandResult:
    status = "exited" if exit_code is not None else "signalled"
    told: dict[str, Any] = {"status": status, "exit_code": exit_code, **fields}
    return CommandResult(command_id="c", session_id="s", stderr=stderr, **told)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (ran("dd: error writing '/tmp/x': No space left on device\n"), "/tmp is full"),
        (ran("EOFError: EOF when reading a line\n"), "give it as stdin"),
        (ran("bash: fork: retry: Resource temporarily unavailable\n", 254), "256 are the most"),
        (ran("touch: cannot touch '/etc/x': Read-only file system\n"), "below /workspace"),
        (ran("touch: cannot touch '/etc/x': Permission denied\n"), "below /workspace"),
        (
            ran("", None, signal=9, reason="It was killed because the sandbox ran out of memory."),
            "The session has 1GiB",
        ),
    ],
)
def test_commands_are_told_the_same(command: CommandResult, word: str) -> None:
    assert word in remedy_for_command(command, OFFLINE, ALL)


def test_a_command_that_went_well_is_told_nothing() -> None:
    assert remedy_for_command(ran("No space left on device", 0), OFFLINE, ALL) == ""
