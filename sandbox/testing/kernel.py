"""A kernel in memory that speaks Jupyter messages and understands a handful of statements.

One statement a line::

    x = 1 + 2                 names, numbers, strings, + - * /
    x                         as the last line: an execute_result
    print(x)  stderr("text")  streams
    display("text/html", "…") display data
    flood(1000000)            that many bytes on stdout
    sleep(3)                  until interrupted
    hang()                    does not hear interrupts
    later("text", 0.1)        a thread that writes so long after the cell's end
    exit(3)                   ends the cell
    raise ValueError("no")    an error
    input("name? ")           prints what it is given, where input is allowed
    die(3)  die("oom")        the kernel's process exits, or is killed for its memory
    block("a thread")         has something with which it cannot be copied
"""

from __future__ import annotations

import ast
import asyncio
import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sandbox.errors import Conflict
from sandbox.link import wire

_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
}


class _Raised(Exception):
    """A statement ended in an error of the language."""

    def __init__(self, name: str, value: str) -> None:
        super().__init__(value)
        self.name, self.value = name, value


class _Exited(Exception):
    """A statement ended the cell."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.metadata = {"sandbox": {"exit_code": code}}
        told = {"ename": "SystemExit", "evalue": str(code), "traceback": [f"SystemExit: {code}"]}
        self.error = told if code else None


class _Died(Exception):
    """A statement ended the kernel's process."""

    def __init__(self, exit_code: int | None, signal: int | None, oom: bool) -> None:
        super().__init__(exit_code, signal, oom)
        self.event = {"event": "exited", "exit_code": exit_code, "signal": signal, "oom": oom}


@dataclass(frozen=True, slots=True)
class KernelCopy:
    """All that a kernel has."""

    variables: dict[str, Any]
    count: int


class FakeKernel:
    """One kernel, of a kernelspec's name, and its log of numbered messages; ``state`` is what it
    begins with."""

    def __init__(
        self, kernel_id: str, name: str, pid: int, state: KernelCopy | None = None
    ) -> None:
        self.kernel_id = kernel_id
        self.name = name
        self.pid = pid
        self.epoch = 1
        self.alive = True
        self.variables: dict[str, Any] = dict(state.variables) if state else {}
        self.blockers: list[str] = []
        self.branch_of = ""
        self.asked: list[str] = []
        """The types of all requests that it has answered."""
        self._log: deque[tuple[int, bytes]] = deque()
        self._last_seq = 0
        self._logged = asyncio.Event()
        self._interrupted = asyncio.Event()
        self._requests: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self._inputs: asyncio.Queue[str] = asyncio.Queue()
        self._allows_input = False
        self._count = state.count if state else 0
        self._metadata: dict[str, Any] = {}
        """Of the reply to the running cell."""
        self._unstarted: list[tuple[str, float]] = []
        """What threads of the running cell are to write, so long after its end."""
        self._threads: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._serve())
        self._event({"event": "started", "pid": pid})

    def info(self) -> dict[str, Any]:
        """What ``kernel.list`` says of it."""
        return {
            "kernel_id": self.kernel_id,
            "name": self.name,
            "pid": self.pid,
            "epoch": self.epoch,
            "alive": self.alive,
            "last_seq": self._last_seq,
            "first_seq": self._log[0][0] if self._log else self._last_seq + 1,
            "branch_of": self.branch_of,
        }

    def submit(self, parts: list[bytes]) -> None:
        """Take a KERNEL message of the controller: its envelope, then the Jupyter parts."""
        if self.alive and json.loads(parts[0]).get("channel") == "stdin":
            self._inputs.put_nowait(str(json.loads(parts[5])["value"]))
        elif self.alive:
            self._requests.put_nowait(parts)

    deaf_s = 0.0
    """How long it hears no interrupt after it has said that a cell begins, as real kernels do."""

    def interrupt(self) -> None:
        """What SIGINT does."""
        self._interrupted.set()

    def restart(self, pid: int) -> None:
        """Kill the process and start another one of the same id."""
        self.stop()
        self.pid, self.epoch, self.alive = pid, self.epoch + 1, True
        self.variables, self._count, self.blockers = {}, 0, []
        self._interrupted.clear()
        self._requests = asyncio.Queue()
        self._task = asyncio.create_task(self._serve())
        self._event({"event": "started", "pid": pid})

    def copied(self) -> KernelCopy:
        """All that it has.

        Raises:
            Conflict: Something of it cannot be copied.
        """
        if not self.alive:
            raise Conflict("The kernel is dead.")
        if self.blockers:
            raise Conflict(f"The kernel cannot be copied: {'; '.join(self.blockers)}.")
        return KernelCopy(dict(self.variables), self._count)

    def roll_back(self, pid: int, copy: KernelCopy, name: str) -> None:
        """Put a copy into the place of the process."""
        self.stop()
        self._event({"event": "rolled_back", "name": name})
        self.restart(pid)
        self.variables, self._count = dict(copy.variables), copy.count

    def stop(self) -> None:
        """Kill the process."""
        for task in (self._task, *self._threads):
            task.cancel()
        if self.alive:
            self._exited(_Died(None, 9, oom=False))

    # --- the log

    def forget(self, seq: int) -> None:
        """Drop the messages up to an acknowledged one."""
        while self._log and self._log[0][0] <= seq:
            self._log.popleft()

    async def after(self, seq: int) -> tuple[int, bytes]:
        """The first message later than ``seq``, waiting for one."""
        while True:
            for number, message in self._log:
                if number > seq:
                    return number, message
            self._logged.clear()
            await self._logged.wait()

    def _append(self, channel: str, parts: list[bytes]) -> None:
        self._last_seq += 1
        envelope = {"seq": self._last_seq, "epoch": self.epoch, "channel": channel}
        message = wire.pack_parts([wire.encode_json(envelope), *parts])
        self._log.append((self._last_seq, message))
        self._logged.set()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Log something that happened to it."""
        self._event(event)

    def _event(self, event: Mapping[str, Any]) -> None:
        self._append("event", [wire.encode_json(event)])

    def _exited(self, death: _Died) -> None:
        self.alive = False
        self._event(death.event)

    # --- the messages

    async def _serve(self) -> None:
        while True:
            envelope, _, header, _, _, content, *_ = await self._requests.get()
            channel = str(json.loads(envelope).get("channel"))
            request = json.loads(header)
            self._say("iopub", "status", {"execution_state": "busy"}, request)
            try:
                reply = await self._answer(request, json.loads(content))
            except _Died as death:
                self._exited(death)
                return
            self.asked.append(str(request["msg_type"]))
            kind = str(request["msg_type"]).replace("_request", "_reply")
            metadata, self._metadata = self._metadata, {}
            self._say(channel, kind, reply, request, metadata)
            self._say("iopub", "status", {"execution_state": "idle"}, request)
            for text, seconds in self._unstarted:
                self._threads.add(asyncio.create_task(self._write_later(text, seconds, request)))
            self._unstarted = []

    def _say(
        self,
        channel: str,
        kind: str,
        content: Mapping[str, Any],
        parent: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "session": self.kernel_id,
            "username": "kernel",
            "date": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
            "version": "5.3",
        }
        self._append(
            channel, [b"", *map(wire.encode_json, (header, parent, metadata or {}, content))]
        )

    async def _answer(
        self, request: Mapping[str, Any], content: Mapping[str, Any]
    ) -> dict[str, Any]:
        match request["msg_type"]:
            case "execute_request":
                return await self._execute(request, content)
            case "complete_request":
                stem = str(content["code"])[: int(content["cursor_pos"])].split(" ")[-1]
                names = sorted(name for name in self.variables if name.startswith(stem))
                end = int(content["cursor_pos"])
                places = {"cursor_start": end - len(stem), "cursor_end": end}
                return {"status": "ok", "matches": names, "metadata": {}, **places}
            case "inspect_request":
                found = self.variables.get(str(content["code"]).strip())
                data = {} if found is None else {"text/plain": repr(found)}
                return {"status": "ok", "found": bool(data), "data": data, "metadata": {}}
            case "kernel_info_request":
                language = {"name": "fake", "version": "1"}
                return {"status": "ok", "protocol_version": "5.3", "language_info": language}
            case _:
                return {"status": "error", "ename": "Unsupported", "evalue": "", "traceback": []}

    async def _execute(
        self, request: Mapping[str, Any], content: Mapping[str, Any]
    ) -> dict[str, Any]:
        self._interrupted.clear()
        self._allows_input = content.get("allow_stdin") is True
        if not content.get("silent"):
            self._count += 1
        code = str(content["code"])
        shown = {"code": code, "execution_count": self._count}
        self._say("iopub", "execute_input", shown, request)
        if self.deaf_s:
            await asyncio.sleep(self.deaf_s)
            self._interrupted.clear()
        try:
            body = ast.parse(code).body
            for statement in body:
                await self._run(statement, request, last=statement is body[-1])
                await asyncio.sleep(0)
        except SyntaxError as exc:
            error = _Raised("SyntaxError", str(exc))
        except _Raised as exc:
            error = exc
        except _Exited as exc:
            self._metadata = exc.metadata
            if exc.error is None:
                return {"status": "ok", "execution_count": self._count}
            self._say("iopub", "error", exc.error, request)
            return {"status": "error", "execution_count": self._count, **exc.error}
        else:
            return {"status": "ok", "execution_count": self._count, "user_expressions": {}}
        lines = ["Traceback (most recent call last):", f"\x1b[31m{error.name}\x1b[0m: {error}"]
        told = {"ename": error.name, "evalue": error.value, "traceback": lines}
        self._say("iopub", "error", told, request)
        return {"status": "error", "execution_count": self._count, **told}

    # --- the language

    async def _run(self, statement: ast.stmt, request: Mapping[str, Any], *, last: bool) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.variables[name] = self._value(value)
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=arguments)):
                raise _Raised(name, " ".join(str(self._value(item)) for item in arguments))
            case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=arguments)):
                await self._call(name, [self._value(item) for item in arguments], request)
            case ast.Expr(value=value):
                result = self._value(value)
                if last and result is not None:
                    data = {"data": {"text/plain": repr(result)}, "metadata": {}}
                    counted = {"execution_count": self._count, **data}
                    self._say("iopub", "execute_result", counted, request)
            case ast.Pass():
                pass
            case _:
                raise _Raised("SyntaxError", "this kernel does not know that statement")

    async def _call(self, name: str, given: list[Any], request: Mapping[str, Any]) -> None:
        match name, given:
            case "print", _:
                text = " ".join(map(str, given)) + "\n"
                self._say("iopub", "stream", {"name": "stdout", "text": text}, request)
            case "stderr", [text]:
                self._say("iopub", "stream", {"name": "stderr", "text": str(text)}, request)
            case "display", [str(mime), data]:
                shown = {"data": {mime: data}, "metadata": {}, "transient": {}}
                self._say("iopub", "display_data", shown, request)
            case "flood", [int(size)]:
                for start in range(0, size, 65536):
                    text = "x" * min(65536, size - start)
                    self._say("iopub", "stream", {"name": "stdout", "text": text}, request)
            case "block", [str(blocker)]:
                self.blockers.append(blocker)
            case "sleep", [int() | float() as seconds]:
                await self._sleep(seconds)
            case "later", [str(text), int() | float() as seconds]:
                self._unstarted.append((text, seconds))
            case "exit", [int(code)]:
                raise _Exited(code)
            case "hang", []:
                await asyncio.get_running_loop().create_future()
            case "die", ["oom" | int() as how]:
                raise _Died(None, 9, oom=True) if how == "oom" else _Died(how, None, oom=False)
            case "input", [str(prompt)] if self._allows_input:
                asked = {"prompt": prompt, "password": False}
                self._say("stdin", "input_request", asked, request)
                text = f"{await self._given()}\n"
                self._say("iopub", "stream", {"name": "stdout", "text": text}, request)
            case "input", _:
                reason = "raw_input was called, but this frontend does not support input requests."
                raise _Raised("StdinNotImplementedError", reason)
            case _:
                raise _Raised("NameError", f"name {name!r} is not defined")

    async def _write_later(self, text: str, seconds: float, request: Mapping[str, Any]) -> None:
        await asyncio.sleep(seconds)
        self._say("iopub", "stream", {"name": "stdout", "text": text}, request)

    async def _given(self) -> str:
        """The next input, unless an interrupt comes first."""
        given = asyncio.ensure_future(self._inputs.get())
        interrupted = asyncio.ensure_future(self._interrupted.wait())
        await asyncio.wait((given, interrupted), return_when=asyncio.FIRST_COMPLETED)
        interrupted.cancel()
        if given.done():
            return given.result()
        given.cancel()
        raise _Raised("KeyboardInterrupt", "")

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._interrupted.wait(), seconds)
            raise _Raised("KeyboardInterrupt", "")

    def _value(self, expression: ast.expr) -> Any:
        match expression:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name) if name in self.variables:
                return self.variables[name]
            case ast.Name(id=name):
                raise _Raised("NameError", f"name {name!r} is not defined")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                try:
                    return _OPERATORS[type(op)](self._value(left), self._value(right))
                except (TypeError, ZeroDivisionError) as exc:
                    raise _Raised(type(exc).__name__, str(exc)) from None
            case _:
                raise _Raised("SyntaxError", "this kernel does not know that expression")
