"""The kernel: ipykernel's handlers, called one message after the other by one thread."""

# ipykernel, jupyter_client and IPython are annotated in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, cast

from ipykernel.ipkernel import IPythonKernel
from ipykernel.jsonutil import json_clean
from jupyter_client.session import extract_header
from tornado import ioloop
from traitlets import Any as AnyTrait
from traitlets import Type

from sandbox.supervisor.pairframes import HOST
from sandbox.supervisor.pykernel.eventloop import KernelLoop, Runner
from sandbox.supervisor.pykernel.pair import Pair, PairSocket
from sandbox.supervisor.pykernel.session import PairSession, packed
from sandbox.supervisor.pykernel.shell import PairShell, exit_code
from sandbox.supervisor.pykernel.streams import CELL, Cell, Streams

_INTERRUPTED: dict[str, Any] = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
_SPAWNING = frozenset(
    ("os.fork", "os.forkpty", "os.posix_spawn", "os.system", "pty.spawn", "subprocess.Popen")
)


class PairKernel(IPythonKernel):
    """IPython's kernel over the pair. An interrupt reaches the user's code only."""

    shell_stream = AnyTrait()
    control_stream = AnyTrait()
    shell_class = Type(PairShell)
    _execute_sleep = 0.0

    def __init__(self, pair: Pair, streams: Streams, loop: KernelLoop, **options: Any) -> None:
        self._pair = pair
        self._streams = streams
        self._loop = loop
        self._spawned = False
        self._stopping = False
        self._aborts = 0
        """How many of the messages that wait are refused, if they are cells."""
        self.orders: dict[str, Callable[[dict[str, Any], list[int]], Any]] = {}
        """What the supervisor may want beside Jupyter's messages: by name, given the order and
        the descriptors that came with it; returns what JSON can hold, or raises why not."""
        sockets = {name: PairSocket(pair, name) for name in ("iopub", "shell", "control", "stdin")}
        self._messages = PairSession(key=b"", check_pid=False)
        super().__init__(
            session=self._messages,
            iopub_socket=sockets["iopub"],
            shell_stream=sockets["shell"],
            control_stream=sockets["control"],
            stdin_socket=sockets["stdin"],
            log=_silent(),
            **options,
        )
        self._own_shell.streams = streams
        runner = Runner(loop)
        self._own_shell.loop_runner = runner
        cast("dict[str, Any]", self._own_shell.loop_runner_map)["asyncio"] = (runner, True)
        sys.addaudithook(self._audit)

    @property
    def _own_shell(self) -> PairShell:
        return cast("PairShell", self.shell)

    @property
    def io_loop(self) -> ioloop.IOLoop:
        """The loop as tornado knows it, for code that asks for it."""
        with self._loop.shown():
            return ioloop.IOLoop.current()

    def run(self) -> None:
        """Serve until the supervisor is gone."""
        self._loop.add_reader(self._pair.fileno(), self._readable)
        self.say_ready()
        while not (self._pair.ended or self._stopping):
            found = self._pair.take()
            if found is None:
                self._pair.flush()
                self._idle()
            elif isinstance(found, tuple):
                self._handle(*found)
        self._loop.remove_reader(self._pair.fileno())

    def say_ready(self) -> None:
        """Tell the supervisor that this process is a kernel, and reads what comes."""
        self._pair.send(HOST, [b'{"ready": true}'])

    # --- between messages

    def _idle(self) -> None:
        """Let the tasks of the cells go on until a message comes."""
        waiting = self._waiting = self._loop.create_future()
        try:
            self._loop.run_until_complete(waiting)
        except (SystemExit, KeyboardInterrupt):  # a task has raised that: it ends the task only
            traceback.print_exc()
        except BaseException:  # GeneratorExit and the like: the kernel goes on
            traceback.print_exc()

    def _readable(self) -> None:
        self._pair.receive()
        if not self._waiting.done():
            self._waiting.set_result(None)

    def _audit(self, event: str, _args: Any) -> None:
        if event in _SPAWNING:
            self._spawned = True

    # --- one message

    def _handle(self, channel: str, parts: list[bytes]) -> None:
        if channel == HOST:
            self._obey(parts)
            return
        try:
            message = self._messages.opened(parts)
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        kind = str(message["msg_type"])
        is_control = channel == "control"
        handler = (self.control_handlers if is_control else self.shell_handlers).get(kind)
        if channel == "stdin" or handler is None:
            return
        aborts, self._aborts = self._aborts > 0, max(self._aborts - 1, 0)
        self._pair.is_held = True
        name = "control" if is_control else "shell"
        stream: Any = self.control_stream if is_control else self.shell_stream
        try:
            self.set_parent([], message, channel=name)
            cell = self._begin(message) if kind == "execute_request" else _cell_of(message)
            CELL.set(cell)  # what a comm's handler prints is of the message that it handles
            self._publish_status("busy", name)
            if aborts and kind == "execute_request":
                self._send_abort_reply(stream, message, [])
            else:
                with self._loop.shown():
                    self._drive(handler, stream, message)
            self._streams.flush()
            self._publish_status("idle", name)
        finally:
            CELL.set(self._streams.cell)
            self._pair.flush()
            self._pair.is_held = False

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        """A cell has failed whose sender wants the next ones not to run: those that have come."""
        self._pair.receive()
        self._aborts = self._pair.waiting

    def _obey(self, parts: list[bytes]) -> None:
        """Do what the supervisor itself wants, between two cells, and answer."""
        order = json.loads(parts[0])
        fds, self._pair.fds = self._pair.fds, []
        answer: dict[str, Any] = {"answer": order.get("id")}
        asked = os.getpid()
        try:
            answer["result"] = self.orders[order["order"]](order, fds)
        except Exception as exc:  # it is told
            answer["error"] = str(exc) or type(exc).__name__
        if os.getpid() == asked:  # a branch was asked nothing, and answers nothing
            self._pair.send(HOST, [packed(answer)])

    def _begin(self, message: dict[str, Any]) -> Cell:
        fresh, self._pair.fds = self._pair.fds, []
        cell = _cell_of(message)
        fresh = self._streams.usable(fresh)
        self._pair.send(HOST, [packed({"cell": message["msg_id"], "pipes": bool(fresh)})])
        self._streams.begin(cell, fresh)
        self._own_shell.left = None
        return cell

    def _drive(self, handler: Any, stream: Any, message: dict[str, Any]) -> None:
        """Run a handler of ipykernel's; none of them waits for anything."""
        try:
            result: Any = handler(stream, [], message)
            if inspect.isawaitable(result):
                _finish(cast("Coroutine[Any, Any, Any]", result))
        except Exception:  # whatever a cell has made of its surroundings
            self._fail(stream, message)
        except KeyboardInterrupt:
            self._fail(stream, message)

    def _fail(self, stream: Any, message: dict[str, Any]) -> None:
        """Answer all the same when a handler has failed."""
        kind, value, _ = sys.exc_info()
        self._streams.mend()
        traceback.print_exc()
        reply = {
            "status": "error",
            "ename": kind.__name__ if kind else "",
            "evalue": str(value),
            "traceback": [],
            "execution_count": self.execution_count,
        }
        msg_type = str(message["msg_type"]).replace("_request", "_reply")
        self._messages.send(stream, msg_type, json_clean(reply), parent=message)

    # --- what ipykernel's handlers ask of it

    async def do_execute(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Run a cell; one that was interrupted as it ended has a reply, too."""
        try:
            try:
                self._pair.flush()
                self._pair.is_held = False
                signal.signal(signal.SIGINT, signal.default_int_handler)
                reply = self._execute(*args, **options)
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                self._streams.mend()
                self._streams.flush()
                self._pair.is_held = True
                if self._spawned:  # said before the cell's end, which may bring the next one
                    self._spawned = False
                    self._pair.send(HOST, [b'{"spawned": true}'])
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return {"status": "error", **_INTERRUPTED}
        if (ending := self._own_shell.left) is not None and exit_code(ending) == 0:
            for key in ("ename", "evalue", "traceback", "engine_info"):
                reply.pop(key, None)
            reply["status"] = "ok"
        return reply

    def _execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: Any = None,
        allow_stdin: bool = False,
        **about: Any,
    ) -> dict[str, Any]:
        """What ipykernel does for a cell when no loop runs; it would transform the code twice."""
        shell: Any = self.shell
        self._forward_input(allow_stdin)
        try:
            result = shell.run_cell(
                code,
                store_history=store_history,
                silent=silent,
                **{name: about[name] for name in _accepted(shell.run_cell_async) & about.keys()},
            )
        finally:
            self._restore_input()
        reply: dict[str, Any] = {"status": "ok"}
        if not result.success or getattr(shell, "_last_traceback_during_displayhook", False):
            error = result.error_before_exec
            error = result.error_in_exec if error is None else error
            reply = {
                "status": "error",
                "traceback": shell._last_traceback or [],
                "ename": type(error).__name__,
                "evalue": str(error),
                "engine_info": {
                    "engine_uuid": self.ident,
                    "engine_id": self.int_id,
                    "method": "execute",
                },
            }
        reply["execution_count"] = shell.execution_count - 1
        wanted = user_expressions if reply["status"] == "ok" and user_expressions else {}
        reply["user_expressions"] = shell.user_expressions(wanted) if wanted else {}
        reply["payload"] = shell.payload_manager.read_payload()
        shell.payload_manager.clear_payload()
        return reply

    def finish_metadata(
        self, parent: Any, metadata: dict[str, Any], reply_content: Any
    ) -> dict[str, Any]:
        """Say with which code a cell has ended itself."""
        metadata = super().finish_metadata(parent, metadata, reply_content)
        if (ending := self._own_shell.left) is not None:
            metadata["sandbox"] = {"exit_code": exit_code(ending)}
        return metadata

    def do_complete(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Complete a name, which asks the user's objects."""
        with _Interruptible():
            return super().do_complete(*args, **options)

    def do_inspect(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Describe a name, which asks the user's objects."""
        with _Interruptible():
            return super().do_inspect(*args, **options)

    async def shutdown_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Answer, and end."""
        restart = bool(parent["content"].get("restart"))
        content = {"status": "ok", "restart": restart}
        self._messages.send(stream, "shutdown_reply", content, parent, ident=ident)
        self._stopping = True

    def _input_request(self, prompt: str, ident: Any, parent: Any, password: bool = False) -> str:
        """Ask whoever has sent the cell, and wait for the answer."""
        while self._pair.take("stdin") is not None:
            pass  # answers to what was asked before
        content = json_clean({"prompt": prompt, "password": password})
        self._messages.send(self.stdin_socket, "input_request", content, parent)
        while (parts := self._pair.take("stdin")) is None:
            if self._pair.ended:
                raise EOFError
            select.select([self._pair.fileno()], [], [])
            self._pair.receive()
        try:
            reply = self._messages.opened(cast("list[bytes]", parts))
            value = str(reply["content"]["value"])
        except (ValueError, KeyError, TypeError):
            value = ""
        if value == "\x04":
            raise EOFError
        return value

    def late(self, parent: dict[str, Any], name: str, text: str) -> None:
        """Publish what a thread or a task of an earlier cell has printed."""
        content = {"name": name, "text": text}
        self._messages.send(self.iopub_socket, "stream", content, parent=parent)

    def _topic(self, topic: str) -> bytes:
        """Nobody subscribes to topics here."""
        return topic.encode()

    def _send_interrupt_children(self) -> None:
        """The supervisor interrupts, and nothing here."""


@functools.lru_cache(maxsize=4)
def _accepted(run_cell: Any) -> frozenset[str]:
    """What a shell wants to know about a cell; the user may have put another method there."""
    parameters = inspect.signature(run_cell).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return frozenset(("cell_id", "cell_meta"))
    return frozenset(each.name for each in parameters) & {"cell_id", "cell_meta"}


def _cell_of(message: dict[str, Any]) -> Cell:
    return Cell({"header": extract_header(message)})


class _Interruptible:
    def __enter__(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _finish(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that waits for nothing, without a loop."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("A handler of this kernel cannot wait.")


def _silent() -> logging.Logger:
    logger = logging.getLogger("ipykernel")
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False
    return logger
