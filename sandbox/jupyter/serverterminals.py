"""The terminals of a Jupyter Server, behind a link: the operations ``terminal.*``.

They are terminado's, with a read buffer that JupyterLab uses too. A reader here is one more of
their clients; it counts for their size only where it has asked for one.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, Protocol

from sandbox.errors import Conflict, InfrastructureError, NotFound
from sandbox.link import wire
from sandbox.link.stream import Stream
from sandbox.outputs.eventlog import EventLog

KEPT_BYTES = 1024 * 1024
PIECE_BYTES = 32 * 1024
PREFIX = "t-"
_NAME = re.compile(r"[a-z0-9]{1,32}")


class Terminado(Protocol):
    """What is used of the server's terminal manager."""

    @property
    def terminals(self) -> Mapping[str, Any]:
        """The ptys by their names."""
        ...

    @property
    def blocking_io_executor(self) -> Executor:
        """Where writing to a pty may block."""
        ...

    def create(self, **options: Any) -> dict[str, Any]:
        """Open one."""
        ...

    async def terminate(self, name: str, force: bool = False) -> None:
        """End one."""
        ...


class Watcher:
    """A client of one pty: keeps what it showed for whoever reads."""

    def __init__(self, pty: Any) -> None:
        self.pty = pty
        self.log = EventLog.bytes_log(KEPT_BYTES, piece_bytes=PIECE_BYTES)
        self.size: tuple[int | None, int | None] = None, None
        """The rows and columns that it wants; None for whatever others want."""
        for text in tuple(pty.read_buffer):
            self.on_pty_read(text)
        pty.clients.append(self)

    def on_pty_read(self, text: str) -> None:
        """terminado: something was shown."""
        if text:
            self.log.append(text.encode("utf-8", "replace"))

    def on_pty_died(self) -> None:
        """terminado: the program has ended."""
        self.log.finish()

    def leave(self) -> None:
        """Watch no longer."""
        if self in self.pty.clients:
            self.pty.clients.remove(self)
        self.log.finish()

    def describe(self, terminal_id: str) -> dict[str, Any]:
        """Its entry in ``terminal.list``."""
        alive = not self.log.is_over
        rows, cols = self.pty.ptyproc.getwinsize() if alive else (24, 80)
        return {
            "terminal_id": terminal_id,
            "pid": self.pty.ptyproc.pid,
            "rows": min(max(rows, 1), 500),
            "cols": min(max(cols, 1), 1000),
            "alive": alive,
            "exit_code": None if alive else self.exit_code,
            "last_offset": self.log.end,
        }

    @property
    def exit_code(self) -> int | None:
        """That of its program, when that is known."""
        code = self.pty.ptyproc.exitstatus
        return code if isinstance(code, int) else None


class ServerTerminals:
    """All terminals of the server, whoever opened them; ``manager`` is None where it has none."""

    def __init__(self, manager: Terminado | None, root: str) -> None:
        self._manager = manager
        self._root = root
        """Where shells start."""
        self._watchers: dict[str, Watcher] = {}
        self._streams: dict[str, Stream] = {}

    @property
    def is_current(self) -> bool:
        """Whether the terminals that there are are those that were listed last."""
        return self._there() == self._watchers.keys()

    async def serve(self, stream: Stream, op: str) -> None:
        """Do one operation."""
        request = stream.request
        terminal_id = str(request.get("terminal_id", ""))
        match op:
            case "list":
                self._look()
                described = [each.describe(own) for own, each in self._watchers.items()]
                await stream.send_json({"terminals": described})
            case "open":
                watcher = self._open(terminal_id, request)
                await stream.send_json({"pid": watcher.pty.ptyproc.pid})
            case "attach":
                await self._attach(stream, terminal_id, int(request.get("after") or 0))
            case "resize":
                self._resize(self._find(terminal_id), request)
                await stream.send_json({})
            case "close":
                await self._close(terminal_id)
                await stream.send_json({})
            case _:
                raise NotFound(f"There is no operation terminal.{op}.")

    # --- inside

    def _there(self) -> set[str]:
        manager = self._manager
        names = () if manager is None else tuple(manager.terminals)
        return {PREFIX + name for name in names if _NAME.fullmatch(name)}

    def _look(self) -> None:
        """Note the terminals that others have opened or closed."""
        there = self._there()
        for terminal_id in tuple(self._watchers):
            if terminal_id not in there:
                self._watchers.pop(terminal_id).leave()
        manager = self._manager
        for terminal_id in sorted(there - self._watchers.keys()):
            if manager is not None:
                name = terminal_id.removeprefix(PREFIX)
                self._watchers[terminal_id] = Watcher(manager.terminals[name])

    def _open(self, terminal_id: str, request: Mapping[str, Any]) -> Watcher:
        if self._manager is None:
            raise InfrastructureError("This Jupyter Server has no terminals.")
        name = terminal_id.removeprefix(PREFIX)
        try:
            self._manager.create(name=name, cwd=os.path.join(self._root, request.get("cwd", "")))
        except Exception as exc:  # whatever a shell that is not there fails with
            raise InfrastructureError(f"No terminal can be opened: {exc!s:.300}") from exc
        watcher = self._watchers[terminal_id] = Watcher(self._manager.terminals[name])
        self._resize(watcher, request)
        return watcher

    def _resize(self, watcher: Watcher, request: Mapping[str, Any]) -> None:
        watcher.size = int(request["rows"]), int(request["cols"])
        if not watcher.log.is_over:
            watcher.pty.resize_to_smallest()

    async def _close(self, terminal_id: str) -> None:
        watcher = self._find(terminal_id)
        name = terminal_id.removeprefix(PREFIX)
        if self._manager is not None and name in self._manager.terminals:
            await self._manager.terminate(name, force=True)
        self._watchers.pop(terminal_id, None)
        watcher.leave()

    async def _attach(self, stream: Stream, terminal_id: str, after: int) -> None:
        watcher = self._find(terminal_id)
        if (older := self._streams.get(terminal_id)) is not None:
            older.reset()
        self._streams[terminal_id] = stream
        start = max(min(after, watcher.log.end), watcher.log.first)
        await stream.send_json({"offset": start})
        try:
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(_tell(stream, watcher, start))
                async for message in stream:
                    await self._type(watcher, message.data)
                telling.cancel()
        finally:
            if self._streams.get(terminal_id) is stream:
                del self._streams[terminal_id]

    async def _type(self, watcher: Watcher, data: bytes) -> None:
        """Type as terminado does: writing blocks while the program does not read."""
        if self._manager is None or watcher.log.is_over:
            return
        typed = data.decode("utf-8", "replace")
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(
                self._manager.blocking_io_executor, watcher.pty.ptyproc.write, typed
            )
        except OSError as exc:
            raise Conflict("The terminal does not take what is typed.") from exc

    def _find(self, terminal_id: str) -> Watcher:
        watcher = self._watchers.get(terminal_id)
        if watcher is None:
            raise NotFound("There is no such terminal.")
        return watcher


async def _tell(stream: Stream, watcher: Watcher, position: int) -> None:
    async for got in watcher.log.follow(position):
        for data in got.entries:
            await stream.send(data, wire.BYTES)
    await stream.send_json({"exit_code": watcher.exit_code})
    stream.end()
