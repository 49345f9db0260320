"""The Bash kernel's process: Jupyter messages to and from one shell.

https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import zmq
from ipykernel.iostream import IOPubThread
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

from sandbox.supervisor.bashkernel import completion
from sandbox.supervisor.bashkernel.cells import ShellCells
from sandbox.supervisor.bashkernel.syntax import problem_of

IOPUB_QUEUE = 64
"""Messages that wait in the kernel for the supervisor, before the kernel waits."""


class BashKernel(Kernel):
    """A kernel whose cells one bash runs.

    The metadata of a reply tell the exit code, and whether the variables are gone, since the shell
    has ended and there is another one: ``{"sandbox": {"exit_code": 3, "state": "restarted"}}``.
    """

    implementation = "sandbox-bash"
    implementation_version = "1.0"
    banner = "Bash"
    language_info = {  # noqa: RUF012  # a traitlet's value
        "name": "bash",
        "mimetype": "text/x-sh",
        "file_extension": ".sh",
        "codemirror_mode": "shell",
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]
        self._cells = ShellCells(os.getcwd(), self._when_sent)
        self._told: dict[str, Any] = {}
        """What the metadata of the next reply tell."""

    def interrupt(self) -> None:
        """Interrupt the running cell; harmless when none runs. A signal handler may call it."""
        self._cells.interrupt()

    def pre_handler_hook(self) -> None:
        """Interrupts are the shell's, whatever is asked."""

    def post_handler_hook(self) -> None:
        """Interrupts are the shell's, whatever was asked."""

    async def do_execute(
        self, code: str, silent: bool, *_others: Any, **_more: Any
    ) -> dict[str, Any]:
        """Run a cell."""
        parent: dict[str, Any] = self.get_parent()  # pyright: ignore[reportUnknownMemberType]

        def publish(name: str, text: str) -> None:
            if not silent:
                self._publish("stream", {"name": name, "text": text}, parent)

        ending = await self._cells.execute(code, publish)
        self._told = {"exit_code": ending.exit_code}
        if ending.shell_ended:
            self._told["state"] = "restarted"
        error = ending.error()
        if error is None:
            empty: dict[str, Any] = {"payload": [], "user_expressions": {}}
            return {"status": "ok", "execution_count": self.execution_count, **empty}
        if not silent:
            self._publish("error", error, parent)
        return {"status": "error", "execution_count": self.execution_count, **error}

    def finish_metadata(
        self, parent: Any, metadata: dict[str, Any], reply_content: Any
    ) -> dict[str, Any]:
        """Add what is told of the cell that has ended."""
        told, self._told = self._told, {}
        return {**metadata, "sandbox": told} if told else metadata

    async def do_complete(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """Complete a word by what the shell knows."""
        printed = await self._cells.ask(completion.asking(code, cursor_pos))
        found = completion.completed(printed, code, cursor_pos)
        return {"status": "ok", "metadata": {}, **found}

    async def do_is_complete(self, code: str) -> dict[str, Any]:
        """Whether code is a whole cell."""
        problem = problem_of(code.encode("utf-8", "surrogatepass"))
        if problem is None:
            return {"status": "complete"}
        is_unfinished = problem.is_unfinished
        return {"status": "incomplete", "indent": ""} if is_unfinished else {"status": "invalid"}

    async def do_shutdown(self, restart: bool) -> dict[str, Any]:
        """End the shell."""
        self._cells.close()
        return {"status": "ok", "restart": restart}

    def _publish(self, msg_type: str, content: dict[str, Any], parent: Any) -> None:
        session: Any = self.session
        topic: Any = self._topic(msg_type)  # pyright: ignore[reportUnknownMemberType]
        session.send(self.iopub_socket, msg_type, content, parent=parent, ident=topic)

    def _when_sent(self, go_on: Callable[[], None]) -> None:
        """Have a function called once all that was published before has been handed over."""
        loop = asyncio.get_running_loop()

        def sent() -> None:
            with contextlib.suppress(RuntimeError):  # the kernel is ending
                loop.call_soon_threadsafe(go_on)

        self.iopub_thread.schedule(sent)


class BashKernelApp(IPKernelApp):
    """ipykernel's application without what is Python's, or the supervisor's to do."""

    def init_heartbeat(self) -> None:
        """The supervisor sees a kernel's end at once, as its parent."""

    def init_signal(self) -> None:
        """Interrupts are passed on. None is ignored: what is started would inherit that."""
        signal.signal(signal.SIGINT, self._interrupted)

    def init_iopub(self, context: zmq.Context[Any]) -> None:
        """A publisher that waits for its reader where ZeroMQ's default is to drop silently."""
        context.setsockopt(zmq.XPUB_NODROP, 1)
        context.setsockopt(zmq.SNDHWM, IOPUB_QUEUE)
        try:
            super().init_iopub(context)  # pyright: ignore[reportUnknownMemberType]
        finally:
            context.sockopts.pop(zmq.XPUB_NODROP)
            context.sockopts.pop(zmq.SNDHWM)

    def _interrupted(self, _signal: int, _frame: FrameType | None) -> None:
        kernel: Any = self.kernel  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if isinstance(kernel, BashKernel):
            kernel.interrupt()


async def _no_looking(_thread: IOPubThread) -> None:
    """Stand for a task that is not needed."""


def main(connection_file: str) -> None:
    """Serve until the process is ended."""
    # It looks every ten seconds for threads that have ended, of which there are none here, and
    # a session in which a process has a timer is never frozen.
    setattr(IOPubThread, "_run_event_pipe_gc", _no_looking)  # noqa: B010
    app = BashKernelApp.instance(
        connection_file=connection_file, kernel_class=BashKernel, log_level=logging.CRITICAL
    )
    app.initialize([])  # pyright: ignore[reportUnknownMemberType]  # ipykernel is not annotated
    app.start()
