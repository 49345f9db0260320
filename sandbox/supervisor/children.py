"""The processes the supervisor starts: how they begin, how their end is noticed, how all end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sandbox.errors import FileError, InfrastructureError, InvalidRequest

MARKER = "SANDBOX_PROCESS_ID"
OOM_SCORE = "1000"
"""Whoever runs code goes before the supervisor when memory ends."""

_KILL_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: with a code, or by a signal."""

    code: int | None
    signal: int | None


@dataclass(slots=True)
class Child:
    """A process of ours: the leader of a session, and thereby of a process group, of its own.

    Args:
        pid: Its number.
        marker: The value of ``MARKER`` in its environment, by which its descendants are found.
        exit: Set when it has ended.
        killed: Whether we have killed it.
    """

    pid: int
    marker: str
    exit: asyncio.Future[Exit]
    killed: bool = False
    handle: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return not self.exit.done()

    def signal(self, number: int) -> None:
        """Send a signal to the process alone; harmless when it has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_tree(self) -> None:
        """Kill the process, its group, and those of its descendants that left it."""
        self.killed = self.killed or self.alive
        kill_tree(self.pid, self.marker, group=self.alive)


class Children:
    """All processes of the supervisor. Their ends are noticed by SIGCHLD, once started."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._serial = 0
        self._prefix = os.urandom(4).hex()

    def start(self) -> None:
        """Begin to notice ends; call it in the running event loop of the main thread."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def kill(self) -> None:
        """Kill every process that is left, with all descendants."""
        for child in tuple(self._children.values()):
            child.kill_tree()

    def stop(self) -> None:
        """Kill every process that is left and notice no more ends."""
        self.kill()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        for child in tuple(self._children.values()):
            with contextlib.suppress(ChildProcessError):
                self._ended(child, os.waitpid(child.pid, 0)[1])

    def marker(self) -> str:
        """A new value for ``MARKER``."""
        self._serial += 1
        return f"{self._prefix}-{self._serial}"

    def spawn(
        self,
        argv: list[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        stdin: int,
        stdout: int,
        stderr: int,
        before_exec: Callable[[], None] | None = None,
    ) -> Child:
        """Start a program in a session of its own.

        Args:
            argv: The program and its arguments.
            env: Its environment; the marker is added.
            cwd: Its working directory.
            stdin: The descriptor it reads from.
            stdout: The descriptor for its output.
            stderr: The descriptor for its errors.
            before_exec: Called in the new process.

        Raises:
            FileError: The working directory or the program cannot be used.
            InfrastructureError: There is no room for another process.
        """
        marker = self.marker()
        try:
            handle = subprocess.Popen(
                argv,
                env={**env, MARKER: marker},
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=before_exec,  # safe: there is one thread only
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as exc:
            reason = "permission_denied" if isinstance(exc, PermissionError) else "not_found"
            where = cwd if not os.access(cwd, os.X_OK) or exc.filename == cwd else argv[0]
            raise FileError(reason, f"{where}: {exc.strerror}.") from exc
        except BlockingIOError as exc:
            raise InfrastructureError(
                "No further process can be started: the limit of processes is reached."
            ) from exc
        except (OSError, UnicodeError) as exc:
            raise InvalidRequest(f"{argv[0][:200]!r} cannot be started: {exc}.") from exc
        child = self.adopt(handle.pid, marker)
        child.handle = handle
        return child

    def adopt(self, pid: int, marker: str) -> Child:
        """Take charge of a process that was just forked."""
        child = Child(pid, marker, asyncio.get_running_loop().create_future())
        self._children[pid] = child
        with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as score:
            score.write(OOM_SCORE)
        return child

    def _reap(self) -> None:
        for child in tuple(self._children.values()):
            try:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = child.pid, 0
            if pid:
                self._ended(child, status)

    def _ended(self, child: Child, status: int) -> None:
        self._children.pop(child.pid, None)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if number is None else None
        if child.handle is not None:
            child.handle.returncode = -number if number else code  # it must not wait itself
        if not child.exit.done():
            child.exit.set_result(Exit(code, number))


def kill_tree(pid: int, marker: str, *, group: bool = True) -> None:
    """Kill a process, its group and all its descendants.

    Descendants that left the group, or whose parents have ended, are found by the marker in their
    environment. They are stopped before they are killed, so that none forks in between.

    Args:
        pid: The root; the leader of its group.
        marker: The root's value of ``MARKER``.
        group: Whether ``pid`` still is that process.
    """
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGSTOP)
    stopped: set[int] = set()
    for _ in range(_KILL_ROUNDS):
        found = set(_descendants(pid if group else -1, marker)) - stopped
        if not found:
            break
        _signal_all(found, signal.SIGSTOP)
        stopped |= found
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    _signal_all(stopped, signal.SIGKILL)


def _signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _descendants(root: int, marker: str) -> list[int]:
    """The living processes below ``root``, and those that carry the marker."""
    assignment = f"{MARKER}={marker}".encode()
    parents: dict[int, int] = {}
    found: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        pid = int(name)
        try:
            with open(f"/proc/{pid}/stat", "rb") as stat:
                state, parent = stat.read().rpartition(b")")[2].split()[:2]
            if state in (b"Z", b"X"):
                continue
            parents[pid] = int(parent)
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if assignment in environ.read().split(b"\0"):
                    found.add(pid)
        except (OSError, ValueError):
            continue  # it has ended meanwhile, or belongs to somebody else
    found.discard(root)
    below = {root} | found
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        below |= more
        grown = bool(more)
    return [pid for pid in below if pid != root and pid in parents]
