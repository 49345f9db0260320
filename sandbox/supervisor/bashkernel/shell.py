"""One bash process that reads one line after another, and what is said to it around a cell.

It is interactive, so that an interrupt ends what it runs and not itself, and has no terminal. Its
own input are lines of ours and its own output goes nowhere, so what prompts, traces and notices of
jobs it makes between cells are nobody's. A cell is a file that it sources, with descriptors of the
cell's own. All of that, and where it reports, it opens by this process's descriptors: nothing of it
is inherited by what the cell starts.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable

_ARGV = ("/bin/bash", "--norc", "--noediting", "-i")
_STARTUP = r"""
set +o history +o histexpand
[ -r /etc/bash.bashrc ] && \builtin . /etc/bash.bashrc </dev/null >/dev/null 2>&1
[ -r ~/.bashrc ] && \builtin . ~/.bashrc </dev/null >/dev/null 2>&1
"""
"""As every interactive bash begins, though our lines are not to be read by what it sources."""
UNKNOWN_CODE = 999
"""Reported when the shell could not say how the cell ended."""
_REPORT = re.compile(rb"([0-9]{1,18}) ([0-9]{1,3})")
_READ_BYTES = 4096


class Shell:
    """A bash process.

    Args:
        report_fd: The end of a pipe into which it reports the end of cells.
        serial: What it reports with that it has started.

    Raises:
        OSError: There is no room for another process.
    """

    def __init__(self, cwd: str, report_fd: int, serial: int) -> None:
        self.is_ready = False
        """Whether the caller has seen what it reports once it has started."""
        self._here = f"/proc/{os.getpid()}/fd"
        self._report_fd = report_fd
        self._serial = serial
        self._before: frozenset[int] = frozenset()
        self._ended: Callable[[], None] = lambda: None
        stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                _ARGV,
                cwd=cwd if os.path.isdir(cwd) else "/",
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            os.close(self._stdin)
            raise
        finally:
            os.close(stdin)
        threading.Thread(target=self._wait, daemon=True).start()
        self._say(f"{_STARTUP}{self._question()}")

    @property
    def ending(self) -> int | None:
        """The exit code with which it has ended, negative for a signal; None while it lives."""
        return self._process.returncode

    def on_end(self, ended: Callable[[], None]) -> None:
        """Have a function called, in a thread, when it has ended, instead of the one before."""
        self._ended = ended
        if self.ending is not None:
            ended()

    def begin(self, serial: int, code_fd: int, output_fd: int, last_code: int) -> None:
        """Run a cell.

        Args:
            serial: What its end is reported with.
            code_fd: A file of this process that holds its text.
            output_fd: A pipe of this process that it writes to.
            last_code: What ``$?`` is for it.
        """
        self._serial = serial
        self._before = self._children()
        # What ends a cell early drops the rest of its line, so the question is a line of its own.
        # Where `set -e` is on, nothing but the cell may end the shell.
        self._say(
            f"\\unset -f builtin; {f'(exit {last_code}) ||' if last_code else ': &&'} \\builtin . "
            f"{self._here}/{code_fd} </dev/null >{self._here}/{output_fd} 2>&1\n{self._question()}"
        )

    def interrupt(self) -> None:
        """End what the running cell waits for, as Ctrl-C does."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGINT)
        for child in self._children() - self._before:  # after `set -m` each has a group of its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(child) == child and os.getsid(child) == self._process.pid:
                    os.killpg(child, signal.SIGINT)
        self._say(f"\n{self._question()}")  # what it was just reading is dropped, perhaps our own

    def kill(self) -> None:
        """End it and wait for that; what it has started goes on."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let go of a shell that has ended."""
        os.close(self._stdin)

    def _question(self) -> str:
        ask = f"\\builtin printf '%s\\n' \"{self._serial} $?\" >{self._here}/{self._report_fd}"
        # Another line, that counts only where the first was dropped, or `builtin` was redefined.
        return f"{ask}\n\\unset -f builtin\n{ask.replace('$?', str(UNKNOWN_CODE))}"

    def _say(self, lines: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # whoever waits for it sees that it has ended
            os.write(self._stdin, f"{lines}\n".encode())

    def _children(self) -> frozenset[int]:
        pid = self._process.pid
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                return frozenset(map(int, file.read().split()))
        except (OSError, ValueError):  # gVisor does not tell
            return frozenset()

    def _wait(self) -> None:
        self._process.wait()
        self._ended()


class Reports:
    """Where shells report the end of cells. What a cell runs can write there, too."""

    def __init__(self) -> None:
        self.fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._rest = b""

    def code_of(self, serial: int) -> int | None:
        """The exit code of a cell, once its end was reported."""
        with contextlib.suppress(BlockingIOError):
            self._rest += os.read(self.fd, _READ_BYTES)
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest[-_READ_BYTES:]
        for match in filter(None, map(_REPORT.fullmatch, lines)):
            if int(match[1]) == serial:
                return int(match[2])
        return None

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self.fd)
        os.close(self.write_fd)
