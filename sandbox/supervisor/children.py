"""The processes the supervisor starts: how they begin, how their end is noticed, how all end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sandbox.errors import FileError, InfrastructureError, InvalidRequest
from sandbox.supervisor.descendants import descendants, end_descendants, has_begun_before
from sandbox.supervisor.orphans import is_child, reap_all, reap_orphans
from sandbox.supervisor.restraint import FIRST_TO_GO, Marks, give_way, mark_of, restrained

GONE_S = 10.0
_POLL_S = 0.002
FOREIGN_POLL_S = 0.05
"""How often it is looked whether a process has ended whose end is told to somebody else."""

_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: with a code, or by a signal."""

    code: int | None
    signal: int | None


@dataclass(slots=True)
class Child:
    """A process of ours: the leader of a session, and thereby of a process group, of its own."""

    pid: int
    mark: int
    """That of all its descendants, wherever they are."""
    marks: Marks
    exit: asyncio.Future[Exit]
    killed: bool = False
    """Whether we have killed it."""
    is_out_of_memory: bool = False
    """Whether that was because memory ran out."""
    is_frozen: bool = False
    """Whether it only keeps a state, and goes before all others when memory runs out."""
    is_foreign: bool = False
    """Whether it is somebody else's child, so that nobody tells us how it ends."""
    handle: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return not self.exit.done()

    def signal(self, number: int) -> None:
        """Send a signal to the process alone, to its first thread; harmless when it has ended.

        Sent to the process, any thread may take it, also one that wakes up for another signal;
        Python's first thread, which alone acts on it, then sleeps on.
        """
        if self.alive:
            _libc.tgkill(self.pid, self.pid, number)

    def kill_tree(self) -> int:
        """Kill the process and all its descendants; returns how many were running."""
        self.killed = self.killed or self.alive
        root = self.pid if self.alive else 0
        return end_descendants(root, self.mark, self.marks, leader=self.pid)

    async def tree_gone(self) -> None:
        """After :meth:`kill_tree`: wait, for a while, until the places of all of them are free."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GONE_S):
                while self.tree():  # of processes that are not ours nobody tells
                    await asyncio.sleep(_POLL_S)
                    self.kill_tree()  # for those that were just being made

    def tree(self) -> frozenset[int]:
        """The numbers of the process and all its descendants."""
        return descendants(self.pid if self.alive else 0, self.mark, self.marks)

    def kill_since(self, before: frozenset[int], at: float) -> int:
        """Kill its descendants that began after a moment; returns how many were running.

        Args:
            before: Those that are known to have been there, since the clock of their beginnings
                has hundredths of a second only.
            at: The moment, by the clock since the machine's start.
        """
        older = (pid for pid in self.tree() if has_begun_before(pid, at))
        root, spare = self.pid if self.alive else 0, before | {self.pid, *older}
        return end_descendants(root, self.mark, self.marks, leader=self.pid, spare=spare)


class Children:
    """All processes of the supervisor. Their ends are noticed by SIGCHLD, once started."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._marks = Marks()
        self._coming: set[int] = set()

    def __iter__(self) -> Iterator[Child]:
        return iter(tuple(self._children.values()))

    def start(self) -> None:
        """Begin to notice ends; call it in the running event loop of the main thread."""
        reap_all()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def kill(self) -> None:
        """Kill every process that is left, with all descendants."""
        for child in self:
            child.kill_tree()

    def stop(self) -> None:
        """Kill every process that is left and notice no more ends."""
        self.kill()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        for child in self:
            with contextlib.suppress(ChildProcessError):
                self._ended(child, os.waitpid(child.pid, 0)[1])

    def mark(self) -> int:
        """A new mark, for a process that is about to be forked."""
        mark = self._marks.new()
        self._coming.add(mark)
        return mark

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

        Raises:
            FileError: The working directory or the program cannot be used.
            InfrastructureError: There is no room for another process.
        """
        _check_program(argv[0], env, cwd)
        mark = self.mark()
        try:
            handle = subprocess.Popen(
                restrained(argv, mark),
                env=env,
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=before_exec,  # safe: there is one thread only
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as exc:
            raise _refusal(cwd, exc) from exc
        except BlockingIOError as exc:
            raise InfrastructureError(
                "No further process can be started: the limit of processes is reached."
            ) from exc
        except (OSError, ValueError) as exc:  # also a NUL, and text that UTF-8 has no bytes for
            raise InvalidRequest(f"{argv[0][:200]!r} cannot be started: {exc}.") from exc
        child = self.adopt(handle.pid, mark)
        child.handle = handle
        return child

    def adopt(self, pid: int, mark: int) -> Child:
        """Take charge of a process that was just forked."""
        child = Child(pid, mark, self._marks, asyncio.get_running_loop().create_future())
        self._coming.discard(mark)
        self._children[pid] = child
        self._marks.leaders.add(pid)
        give_way(pid)
        return child

    def adopt_orphan(self, pid: int, mark: int, *, is_frozen: bool = False) -> Child:
        """Take charge of a process that one of ours has forked and let go.

        Raises:
            InfrastructureError: It has ended, or is another one.
        """
        try:
            is_it = pid not in self._children and mark_of(pid) == mark
        except (OSError, OverflowError):
            is_it = False
        if not is_it:
            raise InfrastructureError("The new process ended before it could be used.")
        child = self.adopt(pid, mark)
        child.is_frozen, child.is_foreign = is_frozen, not is_child(pid)
        if is_frozen:
            give_way(pid, FIRST_TO_GO)
        if child.is_foreign:
            self._look_after(child)
        return child

    def end_marked(self, mark: int) -> None:
        """Kill all that carries a mark that was given to nobody else."""
        self._coming.discard(mark)
        end_descendants(0, mark, self._marks)

    def _look_after(self, child: Child) -> None:
        """Look now and then whether a process has ended that is somebody else's child."""
        try:
            lives = child.alive and mark_of(child.pid) == child.mark
        except OSError:
            lives = False
        if lives:
            asyncio.get_running_loop().call_later(FOREIGN_POLL_S, self._look_after, child)
        elif child.alive:
            self._end(child, Exit(None, signal.SIGKILL if child.killed else None))

    def _reap(self) -> None:
        for child in self:
            if child.is_foreign:
                continue
            try:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = child.pid, 0
            if pid:
                self._ended(child, status)
        reap_orphans(self._children, self._marks, self._coming)

    def _ended(self, child: Child, status: int) -> None:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if number is None else None
        if child.handle is not None:
            child.handle.returncode = -number if number else code  # it must not wait itself
        self._end(child, Exit(code, number))

    def _end(self, child: Child, ending: Exit) -> None:
        self._children.pop(child.pid, None)
        self._marks.leaders.discard(child.pid)
        if not child.exit.done():
            child.exit.set_result(ending)


def _check_program(program: str, env: Mapping[str, str], cwd: str) -> None:
    """Refuse what cannot be executed: the program that restrains it would be the one to tell."""
    path = os.path.join(cwd, program) if "/" in program else program
    if not os.path.isdir(cwd) or shutil.which(path, path=env.get("PATH")) is not None:
        return  # the first is told when it is tried
    there = "/" in program and os.path.exists(path)
    exc = PermissionError(errno.EACCES, os.strerror(errno.EACCES)) if there else None
    raise _refusal(program, exc or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def _refusal(what: str, exc: OSError) -> FileError:
    reason = "permission_denied" if isinstance(exc, PermissionError) else "not_found"
    return FileError(reason, f"{what}: {exc.strerror}.")
