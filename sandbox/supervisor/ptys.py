"""Terminals: interactive programs on ptys, with what they showed last kept for whoever attaches."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Mapping
from typing import Any

from sandbox.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from sandbox.link import wire
from sandbox.link.stream import Stream
from sandbox.supervisor.children import Child, Children
from sandbox.supervisor.pipes import Descriptor
from sandbox.supervisor.requests import answer, identifier, strings, text, whole
from sandbox.supervisor.tasks import Background, alongside

MAX_TERMINALS = 64
SCROLLBACK_BYTES = 1024 * 1024
LAG_BYTES = SCROLLBACK_BYTES // 2
"""How far an attached reader may be behind before the terminal waits for it."""
HANGUP_S = 0.5
DRAIN_S = 0.2
_MAX_OFFSET = 2**63


class Pty:
    """One pty, the program on it, and the last of what it showed."""

    def __init__(
        self, terminal_id: str, master: Descriptor, child: Child, rows: int, cols: int
    ) -> None:
        self.terminal_id = terminal_id
        self.child = child
        self.master = master
        self._size = (rows, cols)
        self._kept = bytearray()
        self._last = 0
        self._ended = False
        self._changed = asyncio.Condition()
        self._readers: dict[object, int] = {}

    def describe(self) -> dict[str, Any]:
        """Its entry in ``terminal.list``."""
        return {
            "terminal_id": self.terminal_id,
            "pid": self.child.pid,
            "rows": self._size[0],
            "cols": self._size[1],
            "alive": not self._ended,
            "exit_code": self.child.exit.result().code if self._ended else None,
            "first_offset": self._last - len(self._kept),
            "last_offset": self._last,
        }

    def resize(self, rows: int, cols: int) -> None:
        """Change the window's size and tell the program."""
        self._size = (rows, cols)
        if self.master.fd >= 0:
            _set_size(self.master.fd, rows, cols)

    async def live(self) -> None:
        """Keep what comes until the program has ended."""
        async with alongside(self._collect()):
            await asyncio.shield(self.child.exit)
            await asyncio.sleep(0)
            try:
                async with asyncio.timeout(DRAIN_S):
                    await self._quiet()
            except TimeoutError:
                pass  # something in the background still holds the terminal
        self.master.close()
        self._ended = True
        await self._notify()

    async def close(self) -> None:
        """Hang up; kill what is left after a moment."""
        if self.child.alive:
            for number in (signal.SIGHUP, signal.SIGCONT):
                try:
                    os.killpg(self.child.pid, number)
                except ProcessLookupError:
                    break
            await asyncio.wait([self.child.exit], timeout=HANGUP_S)
        self.child.kill_tree()
        await asyncio.shield(self.child.exit)

    async def attach(self, stream: Stream, after: int) -> None:
        """Send what was shown since ``after``, then what comes, then the ending."""
        offset = min(max(after, self._last - len(self._kept)), self._last)
        await stream.send_json({"offset": offset})
        reader = object()
        try:
            while True:
                self._readers[reader] = offset
                await self._notify()
                start = len(self._kept) - (self._last - offset)
                if data := bytes(self._kept[start : start + wire.MAX_PAYLOAD]):
                    await stream.send(data, wire.BYTES)
                    offset += len(data)
                    continue
                if self._ended:
                    break
                async with self._changed:
                    while self._last <= offset and not self._ended:
                        await self._changed.wait()
        finally:
            del self._readers[reader]
            await self._notify()
        ending = self.child.exit.result()
        await stream.send_json({"exit_code": ending.code, "signal": ending.signal})
        stream.end()

    async def _collect(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(self._may_read)
            data = await self.master.read(wire.MAX_PAYLOAD)
            if not data:
                return
            self._kept += data
            self._last += len(data)
            if (over := len(self._kept) - SCROLLBACK_BYTES) > 0:
                del self._kept[:over]
            await self._notify()

    async def _quiet(self) -> None:
        """Wait until nothing came for two turns, after the program's end."""
        while True:
            before = self._last
            await asyncio.sleep(0.01)
            if self._last == before:
                return

    def _may_read(self) -> bool:
        return all(self._last - offset < LAG_BYTES for offset in self._readers.values())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class Ptys:
    """All terminals of the container, and the operations on them."""

    def __init__(
        self,
        children: Children,
        env: Mapping[str, str],
        workspace: str,
        tasks: Background,
    ) -> None:
        self._children = children
        self._env = {**env, "TERM": "xterm-256color"}
        self._workspace = workspace
        self._tasks = tasks
        self._terminals: dict[str, Pty] = {}

    async def open(self, stream: Stream) -> None:
        """``terminal.open``"""
        request = stream.request
        terminal_id = identifier(request, "terminal_id")
        rows, cols = _window(request)
        argv = strings(request, "argv") or ["bash", "-i"]
        cwd = os.path.join(self._workspace, text(request, "cwd", ""))
        if terminal_id in self._terminals:
            raise Conflict(f"The terminal {terminal_id} exists already.")
        if len(self._terminals) >= MAX_TERMINALS:
            raise QuotaExceeded(f"There are {MAX_TERMINALS} terminals already.")
        try:
            master, slave = pty.openpty()
        except OSError as exc:
            raise QuotaExceeded(f"No pseudo-terminal can be opened: {exc.strerror}.") from exc
        _set_size(master, rows, cols)
        ours = Descriptor(master)
        try:
            child = self._children.spawn(
                argv,
                env=self._env,
                cwd=cwd,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                before_exec=_take_terminal,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(slave)
        terminal = Pty(terminal_id, ours, child, rows, cols)
        self._terminals[terminal_id] = terminal
        self._tasks.start(terminal.live())
        await answer(stream, terminal_id=terminal_id, pid=child.pid)

    async def list(self, stream: Stream) -> None:
        """``terminal.list``"""
        await answer(stream, terminals=[t.describe() for t in self._terminals.values()])

    async def attach(self, stream: Stream) -> None:
        """``terminal.attach``"""
        terminal = self._find(stream)
        after = whole(stream.request, "after", 0, 0, _MAX_OFFSET)
        async with alongside(_type(stream, terminal.master)):
            await terminal.attach(stream, after)

    async def resize(self, stream: Stream) -> None:
        """``terminal.resize``"""
        self._find(stream).resize(*_window(stream.request))
        await answer(stream)

    async def close(self, stream: Stream) -> None:
        """``terminal.close``"""
        terminal = self._find(stream)
        await terminal.close()
        self._terminals.pop(terminal.terminal_id, None)
        await answer(stream)

    def _find(self, stream: Stream) -> Pty:
        terminal = self._terminals.get(identifier(stream.request, "terminal_id"))
        if terminal is None:
            raise NotFound("There is no such terminal.")
        return terminal


async def _type(stream: Stream, master: Descriptor) -> None:
    """Pass on what the caller types; then stay, to notice when the caller gives up."""
    async for message in stream:
        if message.tag != wire.BYTES:
            raise InvalidRequest("What is typed is sent as bytes.")
        try:
            await master.write(message.data)
        except OSError:
            break  # the program has ended; the other direction says so
    await stream.wait_reset()


def _window(request: Mapping[str, Any]) -> tuple[int, int]:
    return whole(request, "rows", 24, 1, 1000), whole(request, "cols", 80, 1, 1000)


def _set_size(fd: int, rows: int, cols: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def _take_terminal() -> None:
    """In the new process, which leads a session: make its stdin that session's terminal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
