"""What a Python kernel's cells write to their descriptors 1 and 2, as ``stream`` messages.

Python's own streams, C code and child processes all write there, as on anybody's machine. The
kernel never sends a message while something waits in these pipes, so whoever handles all messages
before it reads them keeps the order. A cell whose forerunner has started processes gets new pipes:
what those still write belongs to their own cell.

That holds for what was in a pipe already when the messages were handled, and for one read only:
what comes behind it may be behind a message.

What is written now and then is read at once. Of a flood it is let gather for a while what comes, so
that few messages are made of many lines; a kernel that waits until all is read asks for it.
"""

from __future__ import annotations

import asyncio
import codecs
import fcntl
import json
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from sandbox.supervisor.pipes import prepare

TEXT_LENGTH = 96 * 1024
"""With its frame and its JSON, mostly one message of the log."""
MAX_PAIRS = 32
NAMES = ("stdout", "stderr")
PIPE_BYTES = 256 * 1024
"""What a pipe holds, where the system allows it: of a user's pipes not all may be so large."""
SOON_S = 0.002
"""What comes within this time after another piece may be of a flood."""
PIECES_AT_ONCE = 4
"""Of one stream with nothing between: after so many it is a flood."""
MIN_GATHER_S, MAX_GATHER_S = 0.001, 0.2
"""A flood is let gather for the longer, the less comes of it; ipykernel waits 0.2 s always."""


@dataclass(slots=True, eq=False)
class _Pipes:
    """Both pipes of a cell: the ends that are read here."""

    fds: dict[str, int]
    parent: bytes = b"{}"
    """The header of the cell's request."""
    decoders: dict[str, codecs.IncrementalDecoder] = field(
        default_factory=lambda: {
            name: codecs.getincrementaldecoder("utf-8")("replace") for name in NAMES
        }
    )
    flood: str = ""
    """Which of the two has come last."""
    pieces: int = 0
    """How many pieces of it have come, each soon after the one before."""
    came_at: float = 0.0
    gather_s: float = MIN_GATHER_S
    timer: asyncio.TimerHandle | None = None
    """While that one gathers."""


class CellPipes:
    """All pipes of one kernel process.

    Args:
        before: Handles the messages that have come; called before a pipe is read.
        on_output: Called with the parts of a ``stream`` message.
    """

    def __init__(
        self, before: Callable[[], None], on_output: Callable[[list[bytes]], None]
    ) -> None:
        self._before = before
        self._on_output = on_output
        self._session = os.urandom(8).hex()
        self._serial = 0
        self._all: list[_Pipes] = []
        self._paused = False
        self._ended = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether no more can be made: so many cells' processes are still there."""
        return len(self._all) >= MAX_PAIRS

    def make(self) -> tuple[_Pipes, tuple[int, int]]:
        """New pipes, and their ends for the kernel, which the caller closes.

        Raises:
            OSError: There are no descriptors left.
        """
        out = os.pipe()
        try:
            err = os.pipe()
        except OSError:
            os.close(out[0])
            os.close(out[1])
            raise
        for fd in (out[0], err[0]):
            prepare(fd)
            with suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        pipes = _Pipes({"stdout": out[0], "stderr": err[0]})
        self._all.append(pipes)
        if not self._paused:
            self._watch(pipes)
        return pipes, (out[1], err[1])

    def pause(self) -> None:
        """Stop reading: what comes waits in the pipes."""
        self._paused = True
        for pipes in self._all:
            self._calm(pipes)
            for fd in pipes.fds.values():
                asyncio.get_running_loop().remove_reader(fd)

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        for pipes in self._all:
            self._calm(pipes)
            self._watch(pipes)

    async def drained(self) -> None:
        """Wait until everybody who could write has ended."""
        while self._all:
            self._ended.clear()
            await self._ended.wait()

    def read_all(self) -> None:
        """Read what is there now, of a process that is not there any more or has not begun."""
        for pipes in tuple(self._all):
            for name in tuple(pipes.fds):
                while name in pipes.fds and self._read(pipes, name):
                    pass

    def hasten(self, pipes: _Pipes) -> None:
        """Read soon what is there, since the kernel waits for that."""
        asyncio.get_running_loop().call_soon(self._hasten, pipes)

    def close(self) -> None:
        """Close all."""
        for pipes in tuple(self._all):
            for name in tuple(pipes.fds):
                self._drop(pipes, name)

    def _watch(self, pipes: _Pipes) -> None:
        for name, fd in pipes.fds.items():
            asyncio.get_running_loop().add_reader(fd, self._readable, pipes, name)

    def _readable(self, pipes: _Pipes, name: str) -> None:
        if not self._read_there(pipes):
            return
        if pipes.timer is not None:  # the other one has gathered until now
            self._calm(pipes)
            self._watch(pipes)
        if self._paused or name not in pipes.fds:
            return
        now = time.monotonic()
        if name != pipes.flood or now - pipes.came_at > SOON_S:
            pipes.pieces = 0
        pipes.flood, pipes.came_at = name, now
        pipes.pieces += 1
        if pipes.pieces >= PIECES_AT_ONCE:
            asyncio.get_running_loop().remove_reader(pipes.fds[name])
            self._gather(pipes)

    def _gather(self, pipes: _Pipes) -> None:
        loop = asyncio.get_running_loop()
        pipes.timer = loop.call_later(pipes.gather_s, self._gathered, pipes)

    def _gathered(self, pipes: _Pipes) -> None:
        """Read what has come of a flood; when nothing has, it is over."""
        size = self._read_there(pipes)
        if self._paused or pipes.flood not in pipes.fds:  # what was read was too much, or the last
            return
        if not size:
            self._calm(pipes)
            self._watch(pipes)
            return
        if size > PIPE_BYTES // 2:
            pipes.gather_s = max(pipes.gather_s / 2, MIN_GATHER_S)
        elif size < PIPE_BYTES // 4:
            pipes.gather_s = min(pipes.gather_s * 2, MAX_GATHER_S)
        self._gather(pipes)

    def _calm(self, pipes: _Pipes) -> None:
        """Let nothing gather: the next piece is read at once."""
        if pipes.timer is not None:
            pipes.timer.cancel()
            pipes.timer = None
        pipes.pieces, pipes.gather_s = 0, MIN_GATHER_S

    def _hasten(self, pipes: _Pipes) -> None:
        if not self._paused and self._read_there(pipes) and pipes.timer is not None:
            self._calm(pipes)
            self._watch(pipes)

    def _read_there(self, pipes: _Pipes) -> int:
        """Read once from each of the two in which there is something; how many bytes that were."""
        poll = select.poll()
        for fd in pipes.fds.values():
            poll.register(fd, select.POLLIN)
        there = {fd for fd, _ in poll.poll(0)}
        # What has gathered came before what the other one has now. Of what came at once nobody can
        # tell; programs mostly say on stderr what became of what they wrote before.
        first = pipes.flood if pipes.timer is not None else NAMES[0]
        names = [n for n in sorted(NAMES, key=first.__ne__) if pipes.fds.get(n) in there]
        if names:
            self._before()
        return sum(self._read(pipes, name) for name in names)

    def _read(self, pipes: _Pipes, name: str) -> int:
        """Read once; how many bytes that were."""
        try:
            data = os.read(pipes.fds[name], PIPE_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        text = pipes.decoders[name].decode(data, final=not data)
        for at in range(0, len(text), TEXT_LENGTH):
            part = text[at : at + TEXT_LENGTH]
            self._on_output(self._message(name, part, pipes.parent))
        if not data:
            self._drop(pipes, name)
        return len(data)

    def _drop(self, pipes: _Pipes, name: str) -> None:
        if name == pipes.flood:
            self._calm(pipes)
        fd = pipes.fds.pop(name)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
        if not pipes.fds:
            self._all.remove(pipes)
            self._ended.set()

    def _message(self, name: str, text: str, parent: bytes) -> list[bytes]:
        self._serial += 1
        now = time.time()
        date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        header = (
            f'{{"msg_id": "{self._session}-{self._serial}", "msg_type": "stream", '
            f'"username": "sandbox", "session": "{self._session}", '
            f'"date": "{date}.{int(now % 1 * 1e6):06d}Z", "version": "5.4"}}'
        )
        content = json.dumps({"name": name, "text": text}, ensure_ascii=False)
        return [b"", header.encode(), parent, b"{}", content.encode()]
