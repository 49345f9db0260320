"""The supervisor's end of a Python kernel: one pair of sockets, and the pipes of its cells."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sandbox.errors import Conflict, InfrastructureError, ProtocolError
from sandbox.link import wire
from sandbox.supervisor.cellpipes import CellPipes
from sandbox.supervisor.messagelog import DELIMITER
from sandbox.supervisor.pairframes import HOST, FrameReader, frame
from sandbox.supervisor.zmtp import Incoming

READ_BYTES = 256 * 1024
MAX_READS = 4
MAX_WAITING_CELLS = 256
MAX_REFUSAL = 4000
_FROM_KERNEL = frozenset(("iopub", "shell", "control", "stdin"))


class PairChannels:
    """The connection to one Python kernel's process, which says there what it likes.

    Args:
        on_message: Called with each Jupyter message and its channel.
    """

    def __init__(self, on_message: Callable[[str, Incoming], None]) -> None:
        self._on_message = on_message
        self._reader = FrameReader(self._framed)
        self._pipes = CellPipes(self._take_messages, self._printed)
        self._socket, self._theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._current, self._their_fds = self._pipes.make()
        self._next: deque[tuple[str, bytes, Any]] = deque(maxlen=MAX_WAITING_CELLS)
        self._wants_pipes = False
        self._session = os.urandom(8).hex()
        self._serial = 0
        self._opening: bytes | None = b""
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._is_ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._paused = False
        self.has_started = False
        """Whether it says that it has started processes; who asks may take it back."""
        self.complaint = ""
        """What was wrong with what the process said, if that was no frame."""

    @property
    def theirs(self) -> tuple[int, int, int]:
        """The descriptors of the kernel: of the pair, its stdout and its stderr."""
        out, err = self._their_fds
        return (self._theirs.fileno(), out, err)

    @property
    def may_have_spawned(self) -> bool:
        """Whether the last cell has started processes, as the kernel says."""
        return self._wants_pipes

    @property
    def said(self) -> str:
        """What the process has written before it was ready."""
        self._pipes.read_all()
        return (self._opening or b"").decode("utf-8", "replace").strip()

    def forked(self) -> None:
        """Let go of the kernel's ends, once it has them, or there is none."""
        self._let_go()
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    async def open(self, alive: Callable[[], bool]) -> None:
        """Wait until the kernel says that it is one.

        Raises:
            InfrastructureError: The process ended, or is not a kernel.
        """
        await self._is_ready.wait()
        if self._lost.is_set() or not alive():
            raise InfrastructureError("The kernel ended before it was ready.")
        self._opening = None

    async def send(self, channel: str, parts: list[bytes]) -> None:
        """Send a Jupyter message, given as its parts after the delimiter."""
        fds: tuple[int, ...] = ()
        if channel == "shell" and b'"execute_request"' in parts[1]:
            fds = self._announce(parts[1])
        self._write(frame(channel, parts[1:]), fds)
        await self._room.wait()

    def send_message(self, channel: str, msg_type: str) -> None:
        """Send a message of the supervisor's own, without content."""
        self._serial += 1
        header = {
            "msg_id": f"{self._session}-{self._serial}",
            "msg_type": msg_type,
            "session": self._session,
            "username": "supervisor",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "version": "5.3",
        }
        self._write(frame(channel, [json.dumps(header).encode(), b"{}", b"{}", b"{}"]))

    async def ask(self, order: str, fds: Sequence[int] = (), **more: Any) -> Any:
        """Have the kernel do something, between two cells; what it answers is hostile.

        Args:
            fds: Handed over with the order, and closed here.

        Raises:
            Conflict: It refuses, in its words.
            InfrastructureError: The connection ended.
        """
        self._serial += 1
        answer = self._answers[self._serial] = asyncio.get_running_loop().create_future()
        message = {"order": order, "id": self._serial, **more}
        self._write(frame(HOST, [json.dumps(message).encode()]), tuple(fds))
        try:
            found = await answer
        finally:
            self._answers = {n: each for n, each in self._answers.items() if each is not answer}
        if "result" in found:
            return found["result"]
        raise Conflict(str(found.get("error", ""))[:MAX_REFUSAL])

    async def lost(self) -> None:
        """Wait until nothing more can come over the pair."""
        await self._lost.wait()

    def pause(self) -> None:
        """Stop reading: the kernel then waits with what it says and prints."""
        if not self._paused:
            self._paused = True
            asyncio.get_running_loop().remove_reader(self._socket)
            self._pipes.pause()

    def resume(self) -> None:
        """Read on."""
        if self._paused and not self._lost.is_set():
            self._paused = False
            asyncio.get_running_loop().add_reader(self._socket, self._readable)
            self._pipes.resume()

    async def drained(self, timeout_s: float) -> None:
        """After the process's end: wait until what it had sent is read, as far as it comes."""
        self.resume()
        self._take_messages()
        self._pipes.read_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._lost.wait()
                await self._pipes.drained()

    def close(self) -> None:
        """Close all of it."""
        self._end()
        self._pipes.close()
        self._socket.close()
        if self._theirs.fileno() >= 0:
            self._let_go()

    def _let_go(self) -> None:
        self._theirs.close()
        for fd in self._their_fds:
            os.close(fd)
        self._their_fds = (-1, -1)

    # --- what comes

    def _readable(self) -> None:
        self._take_messages(once=True)

    def _take_messages(self, *, once: bool = False) -> None:
        """Handle what has come over the pair, within bounds: the rest comes in the next turn."""
        for _ in range(MAX_READS):
            if self._lost.is_set():
                return
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._end()
                return
            try:
                self._reader.feed(data)
            except ProtocolError as exc:
                self.complaint = str(exc)
                self._end()
                return
            if once and len(data) < READ_BYTES:
                return

    def _framed(self, channel: str, message: Incoming) -> None:
        if channel == HOST:
            self._told(message)
        elif channel in _FROM_KERNEL and self._opening is None:
            self._on_message(channel, message)

    def _printed(self, parts: list[bytes]) -> None:
        if self._opening is None:
            self._on_message("iopub", Incoming([DELIMITER, *parts], len(parts[4]), True))
        else:
            self._opening += _text(parts[4])
            self._opening = self._opening[-4000:]

    def _told(self, message: Incoming) -> None:
        """Take what the kernel says of itself; it may say anything, about itself only."""
        try:
            found = wire.decode_json(message.frames[2]) if message.complete else {}
        except (ProtocolError, IndexError):
            return
        if found.get("ready") is True:
            self._is_ready.set()
        if found.get("spawned") is True:
            self._wants_pipes = self.has_started = True
        if found.get("printed") is True:
            self._pipes.hasten(self._current)
        answer = self._answers.get(found["answer"]) if type(found.get("answer")) is int else None
        if answer is not None and not answer.done():
            answer.set_result(found)
        if isinstance(cell := found.get("cell"), str):
            self._begun(cell, has_taken=found.get("pipes") is True)

    # --- whose output it is

    def _announce(self, header: bytes) -> tuple[int, ...]:
        """Note a cell that is sent; new pipes for it when the last has started processes."""
        pipes, fds = None, ()
        if self._wants_pipes and not self._pipes.is_full:
            self._wants_pipes = False
            with contextlib.suppress(OSError):
                pipes, fds = self._pipes.make()
        with contextlib.suppress(ProtocolError):
            msg_id = str(wire.decode_json(header).get("msg_id"))
            self._next.append((msg_id, header, pipes))
        return fds

    def _begun(self, msg_id: str, *, has_taken: bool) -> None:
        """A cell begins to run: what is printed from here on is its own.

        Args:
            has_taken: Whether it has the new pipes, for which it may have no room.
        """
        while self._next:
            known, header, pipes = self._next.popleft()
            if has_taken:
                self._current = pipes or self._current
            if known == msg_id:
                self._current.parent = header
                return

    # --- what goes

    def _write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        if self._lost.is_set():
            for fd in fds:
                os.close(fd)
            return
        self._outgoing.append((memoryview(data), fds))
        if len(self._outgoing) == 1:
            self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._outgoing:
            view, fds = self._outgoing[0]
            try:
                sent = (
                    socket.send_fds(self._socket, [view], fds) if fds else self._socket.send(view)
                )
            except BlockingIOError:
                loop.add_writer(self._socket, self._flush)
                self._room.clear()
                return
            except OSError:
                self._end()
                return
            for fd in fds:
                os.close(fd)
            if sent < len(view):
                self._outgoing[0] = (view[sent:], ())
            else:
                self._outgoing.popleft()
        loop.remove_writer(self._socket)
        self._room.set()

    def _end(self) -> None:
        """Nothing more comes or goes over the pair."""
        if self._socket.fileno() >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
        for _, fds in self._outgoing:
            for fd in fds:
                os.close(fd)
        self._outgoing.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(InfrastructureError("The kernel's process has ended."))
        self._lost.set()
        self._is_ready.set()
        self._room.set()


def _text(content: bytes) -> bytes:
    return str(json.loads(content)["text"]).encode("utf-8", "replace")
