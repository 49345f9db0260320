"""A command on a terminal of its own, as a person runs it: what it shows, and what is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMEOUT_S = 90.0


class PtyProcess:
    """A process whose standard input, output and error are one pty; a context manager."""

    def __init__(
        self, *words: str, env: Mapping[str, str], cwd: Path | None = None, rows: int = 24
    ) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(rows, 80, tell=False)
        self.before = termios.tcgetattr(self._slave)
        self.shown = b""
        self._at = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sandbox", *words],
            env=env,
            cwd=cwd,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> PtyProcess:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)
        os.close(self._master)
        os.close(self._slave)

    @property
    def attributes(self) -> list[Any]:
        """How the terminal is set: its echo, its line editing, its signals."""
        return termios.tcgetattr(self._slave)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def see(self, what: str) -> bytes:
        """Wait until something is shown that was not seen before, and return all up to it."""
        deadline = time.monotonic() + TIMEOUT_S
        while (found := self.shown.find(what.encode(), self._at)) < 0:
            if time.monotonic() > deadline or not self._read(1.0):
                assert self._process.poll() is None, self.shown
                assert time.monotonic() < deadline, self.shown
        start, self._at = self._at, found + len(what.encode())
        return self.shown[start : self._at]

    def resize(self, rows: int, cols: int, *, tell: bool = True) -> None:
        """Change the size of the window."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        if tell:
            self._process.send_signal(signal.SIGWINCH)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Read what is shown until the process has ended; its exit code."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._process.poll() is None:
            assert time.monotonic() < deadline, self.shown
            self._read(0.2)
        while self._read(0.1):
            pass
        return self._process.returncode

    def _read(self, patience_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], patience_s)
        if ready:
            self.shown += os.read(self._master, 65536)
        return bool(ready)
