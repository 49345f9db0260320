"""Runs cells in a shell, one after the other, and has another shell when one has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace

from sandbox.supervisor.bashkernel.ending import (
    CANNOT_RUN_CODE,
    INTERRUPTED_CODE,
    SYNTAX_CODE,
    Ending,
    shell_ending,
)
from sandbox.supervisor.bashkernel.outputs import CellOutput
from sandbox.supervisor.bashkernel.shell import UNKNOWN_CODE, Reports, Shell
from sandbox.supervisor.bashkernel.syntax import problem_of

OnText = Callable[[str, str], None]
"""Is called with the name of a stream, and text."""
Paced = Callable[[Callable[[], None]], None]


class ShellCells:
    """The cells of one kernel. All but :meth:`interrupt` is called in one event loop.

    Args:
        paced: Called after each text with what goes on with the next: at once, or when it was sent.
    """

    def __init__(self, cwd: str, paced: Paced = lambda go_on: go_on()) -> None:
        self._cwd = cwd
        self._paced = paced
        self._reports = Reports()
        self._serial = 0
        self._last_code = 0
        self._checking: subprocess.Popen[bytes] | None = None
        self._is_running = self._is_begun = False
        self._was_interrupted = False
        self._lost = ""
        """How the last shell ended, until the first cell of the next one has told it."""
        self._shell: Shell | None = None
        with contextlib.suppress(OSError):  # then a cell says so
            self._shell = self._start()

    @property
    def has_lost_shell(self) -> bool:
        """Whether the shell has ended, which the next cell tells."""
        return self._shell is None or self._shell.ending is not None

    async def execute(self, code: str, on_text: OnText) -> Ending:
        """Run a cell, unless bash cannot read all of it; then nothing of it is run.

        Args:
            on_text: Called with what it writes, also after its end as long as something writes.
        """
        text = code.encode("utf-8", "surrogatepass")
        self._is_running, self._was_interrupted = True, False
        try:
            problem = problem_of(text, self._checked_by)
            if self._was_interrupted:
                ending = Ending(INTERRUPTED_CODE, is_interrupted=True)
            elif problem:
                said = f"{problem.words}\nNothing of the cell was run."
                ending = Ending(SYNTAX_CODE, problem=said)
            else:
                ending = await self._run(text, on_text)
        finally:
            self._is_running = self._is_begun = False
        self._last_code = 0 if ending.shell_ended else ending.exit_code
        return ending

    async def ask(self, code: str) -> str:
        """Run a cell of the kernel's own and return what it prints."""
        texts: list[str] = []
        await self._run(code.encode("utf-8", "surrogatepass"), lambda _, text: texts.append(text))
        return "".join(texts)

    def interrupt(self) -> None:
        """Interrupt the running cell; harmless when none runs. A signal handler may call it."""
        if not self._is_running:
            return
        self._was_interrupted = True
        if self._checking is not None:
            self._checking.kill()
        elif self._shell is not None and self._is_begun:
            self._shell.interrupt()

    def close(self) -> None:
        """End the shell; what it has started goes on."""
        if self._shell is not None:
            self._shell.kill()
            self._shell.close()
        self._reports.close()

    async def _run(self, code: bytes, on_text: OnText) -> Ending:
        """Run code until the shell says that it is done, or has ended."""
        lost = self._bury()
        told, self._lost = self._lost, ""
        if told:
            said = f"[a new shell, without the variables of the last: {told}]\n"
            on_text("stderr", said)
        file = os.memfd_create("cell", os.MFD_CLOEXEC)
        try:
            shell = self._shell = self._shell or self._start()
            output = CellOutput(on_text, self._paced)
            try:
                os.write(file, code)
                ending = await self._started(shell)
                if ending is None:
                    self._serial += 1
                    shell.begin(self._serial, file, output.write_fd, self._last_code)
                    ending = await self._end_of(shell)
            finally:
                output.end_cell()
        except OSError as exc:
            ending = Ending(CANNOT_RUN_CODE, problem=f"bash: cannot run a cell: {exc.strerror}")
        finally:
            os.close(file)
        return replace(ending, shell_ended=ending.shell_ended or lost)

    def _start(self) -> Shell:
        self._serial += 1
        return Shell(self._cwd, self._reports.write_fd, self._serial)

    async def _started(self, shell: Shell) -> Ending | None:
        """Wait until a shell has read what it starts with; how the cell ends if it shall not run,
        since that was interrupted, or the shell has ended."""
        if shell.is_ready:
            return None
        ending = await self._end_of(shell)
        shell.is_ready = True
        if self._was_interrupted and not ending.shell_ended:
            return Ending(INTERRUPTED_CODE, is_interrupted=True)
        return ending if ending.shell_ended else None

    async def _end_of(self, shell: Shell) -> Ending:
        """Wait for the end of what the shell does, or of the shell, which then has a successor."""
        self._is_begun = self._is_running
        if self._was_interrupted:
            shell.interrupt()
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        loop.add_reader(self._reports.fd, changed.set)
        shell.on_end(lambda: _in_loop(loop, changed.set))
        try:
            while True:
                await changed.wait()
                changed.clear()
                code = self._reports.code_of(self._serial)
                if code is not None:
                    if code == UNKNOWN_CODE:  # the end itself was interrupted
                        code = INTERRUPTED_CODE if self._was_interrupted else 1
                    stopped = self._was_interrupted and code == INTERRUPTED_CODE
                    return Ending(code & 0xFF, is_interrupted=stopped)
                if shell.ending is not None:
                    ending = shell_ending(shell.ending, is_interrupted=self._was_interrupted)
                    self._bury()
                    return ending
        finally:
            loop.remove_reader(self._reports.fd)

    def _bury(self) -> str:
        """If the shell has ended, have another one; returns how it has ended, else nothing."""
        if self._shell is None or self._shell.ending is None:
            return ""
        self._shell.close()
        self._lost = shell_ending(self._shell.ending, is_interrupted=False).shell_ended
        self._shell, self._last_code = None, 0
        with contextlib.suppress(OSError):  # then the next cell tries, and says so
            self._shell = self._start()
        return self._lost

    def _checked_by(self, process: subprocess.Popen[bytes] | None) -> None:
        self._checking = process


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
        loop.call_soon_threadsafe(call)
