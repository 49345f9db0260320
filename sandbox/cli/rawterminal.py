"""The terminal of the person here, handed to a program in a sandbox and taken back at the end."""

from __future__ import annotations

import os
import termios
import tty
from contextlib import suppress
from types import TracebackType

import anyio
import anyio.to_thread

from sandbox.cli.escapes import TerminalFilter
from sandbox.cli.outlets import write_all
from sandbox.errors import InvalidRequest

READ_BYTES = 16 * 1024
MAX_ROWS, MAX_COLS = 500, 1000


class RawTerminal:
    """Standard input and output as a terminal whose keys all go to the program; a context manager.

    Raises:
        InvalidRequest: They are no terminal.
    """

    def __init__(self) -> None:
        self._in, self._out = 0, 1
        if not (os.isatty(self._in) and os.isatty(self._out)):
            raise InvalidRequest(
                "This is no terminal, which a shell needs.",
                remedy="Run commands with `sandbox exec SESSION -- …` or `sandbox run`.",
            )
        self._filter = TerminalFilter()
        self._before = termios.tcgetattr(self._in)

    def __enter__(self) -> RawTerminal:
        rows, _ = self.size()
        # What is shown scrolls away, so that the program's screen begins at the top as it thinks.
        self._write("\r\n" * rows + "\x1b[H")
        self.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError, termios.error):  # when the terminal itself is gone
            self._write(self._filter.restored())
        with suppress(OSError, termios.error):
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def take(self) -> None:
        """Have every key reach the program, also after the shell here has had the terminal."""
        tty.setraw(self._in, termios.TCSADRAIN)

    def size(self) -> tuple[int, int]:
        """Rows and columns of the window, within what a sandbox takes."""
        try:
            columns, rows = os.get_terminal_size(self._out)
        except OSError:
            columns, rows = 80, 24
        return min(max(rows, 1), MAX_ROWS), min(max(columns, 1), MAX_COLS)

    async def read(self) -> bytes:
        """What is typed next; nothing when the terminal is gone."""
        await anyio.wait_readable(self._in)
        try:
            return os.read(self._in, READ_BYTES)
        except OSError:
            return b""

    async def show(self, data: bytes) -> None:
        """Show what the program writes, as far as it draws."""
        await anyio.to_thread.run_sync(self._write, self._filter.feed(data), abandon_on_cancel=True)

    def _write(self, text: str) -> None:
        write_all(self._out, text.encode())
