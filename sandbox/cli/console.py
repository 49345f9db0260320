"""`sandbox python`: a console on the kernel of a session."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from sandbox.cli import exits, logs
from sandbox.cli.cellchannel import check, complete, run_cell
from sandbox.cli.newsession import new_session
from sandbox.cli.printing import Printer
from sandbox.cli.run import exit_code
from sandbox.cli.sessionaccess import Access
from sandbox.cli.signals import exit_by_signals
from sandbox.cli.targets import ControllerTarget, existing_session
from sandbox.config import Settings
from sandbox.errors import Conflict, SandboxError
from sandbox.kernels.models import ExecutionResult
from sandbox.server.channels.channel import Channel

FIRST, NEXT = ">>> ", "... "
STEM = "picture"

_Answer = TypeVar("_Answer")


def run_console(
    settings: Settings, target: ControllerTarget, session: str, policy: str, images: Path
) -> int:
    """Read code here and run it on a session's default kernel, until there is no more.

    Args:
        session: The session of a served controller; empty for a new one, which ends with it.
        images: The folder that pictures are saved in.

    Returns:
        The exit code: that of the last cell when the code did not come from a terminal.

    Raises:
        SandboxError: There is no such session, or it was lost.
    """
    logs.configure(settings.log_level)
    with exit_by_signals(signal.SIGTERM, signal.SIGHUP), start_blocking_portal() as portal:
        opened = _opened(settings, target, session, policy)
        with portal.wrap_async_context_manager(opened) as (access, channel):
            console = Console(portal, channel, images)
            if sys.stdin.isatty():
                print(f"Session {access.session_id}. Ctrl-C interrupts, Ctrl-D leaves.")
                return console.talk()
            return console.run_all(sys.stdin.read())


@asynccontextmanager
async def _opened(
    settings: Settings, target: ControllerTarget, session: str, policy: str
) -> AsyncGenerator[tuple[Access, Channel]]:
    if session:
        opened = existing_session(settings, target, session)
    else:
        opened = new_session(settings, target, policy, "sandbox python", {"policy": policy})
    async with opened as found:
        access = found[0] if isinstance(found, tuple) else found
        async with access.channel("kernel") as channel:
            await channel.send({})
            yield access, channel


class Console:
    """Reads code in this thread, while the portal's thread talks to the kernel."""

    def __init__(self, portal: BlockingPortal, channel: Channel, images: Path) -> None:
        self._portal = portal
        self._channel = channel
        self._images = images

    def talk(self) -> int:
        """Read and run until Ctrl-D."""
        self._offer_completion()
        while True:
            try:
                code = self._read()
            except EOFError:
                print()
                return exits.OK
            except KeyboardInterrupt:
                print("\nKeyboardInterrupt")
                continue
            if not code.strip():
                continue
            try:
                result = self._run(code)
            except Conflict as exc:
                print(f"sandbox: {exc}", file=sys.stderr)
                continue
            is_over = result.status in ("ok", "error") and result.exit_code is not None
            if is_over or (result.error is not None and result.error.name == "SystemExit"):
                return exit_code(result)

    def run_all(self, code: str) -> int:
        """Run code that did not come from a terminal, as one cell."""
        return exit_code(self._run(code)) if code.strip() else exits.OK

    def _read(self) -> str:
        """The next cell, of as many lines as the kernel wants."""
        lines = [input(FIRST)]
        while True:
            code = "\n".join(lines)
            if not code.strip():
                return ""
            try:
                found = self._call(check, self._channel, code)
            except Conflict:
                return code  # a busy kernel does not say: what is there is the cell
            if found.status != "incomplete" or (len(lines) > 1 and not lines[-1].strip()):
                return code  # an empty line ends a block, as in Python's own console
            lines.append(self._indented(found.indent))

    def _indented(self, indent: str) -> str:
        """The next line, which begins with an indent that can be taken away."""
        try:
            import readline
        except ImportError:
            return input(NEXT)
        readline.set_startup_hook(lambda: readline.insert_text(indent))
        try:
            return input(NEXT)
        finally:
            readline.set_startup_hook()

    def _run(self, code: str) -> ExecutionResult:
        printer = Printer(self._images, STEM, keeps=True)
        running = self._portal.start_task_soon(run_cell, self._channel, code, printer)
        try:
            while True:
                try:
                    result = running.result()
                    break
                except KeyboardInterrupt:
                    self._portal.start_task_soon(self._channel.send, {"interrupt": True})
        finally:
            printer.restore()
        printer.close(result)
        return result

    def _call(self, ask: Callable[..., Coroutine[Any, Any, _Answer]], *args: Any) -> _Answer:
        """Ask the kernel; Ctrl-C counts once the answer is there, which nobody else may hear."""
        asked = self._portal.start_task_soon(ask, *args)
        is_interrupted = False
        while True:
            try:
                answer = asked.result()
                break
            except KeyboardInterrupt:
                is_interrupted = True
        if is_interrupted:
            raise KeyboardInterrupt
        return answer

    def _offer_completion(self) -> None:
        try:
            import readline
        except ImportError:
            return
        matches: list[str] = []

        def offer(text: str, state: int) -> str | None:
            if state == 0:
                matches.clear()
                with suppress(SandboxError):
                    line = readline.get_line_buffer()[: readline.get_endidx()]
                    if not line.strip():
                        matches.append(text + "    ")
                    else:
                        found = self._call(complete, self._channel, line)
                        head = line[found.cursor_start : readline.get_begidx()]
                        matches.extend(
                            match.removeprefix(head)
                            for match in found.matches
                            if match.startswith(head)
                        )
            return matches[state] if state < len(matches) else None

        readline.set_completer(offer)
        readline.parse_and_bind("tab: complete")
