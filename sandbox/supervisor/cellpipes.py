"""What a Python kernel's cells write to their descriptors 1 and 2, as ``stream`` messages.

Python's own streams, C code and child processes all write there, as on anybody's machine. The
kernel never sends a message while something waits in these pipes, so whoever handles all messages
before it reads them keeps the order. A cell whose forerunner has started processes gets new pipes:
what those still write belongs to their own cell.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.supervisor.pipes import prepare

READ_BYTES = 96 * 1024
"""With its frame and its JSON, mostly one message of the log."""
MAX_PAIRS = 32
NAMES = ("stdout", "stderr")


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
        pipes = _Pipes({"stdout": out[0], "stderr": err[0]})
        self._all.append(pipes)
        if not self._paused:
            self._watch(pipes)
        return pipes, (out[1], err[1])

    def pause(self) -> None:
        """Stop reading: what comes waits in the pipes."""
        self._paused = True
        for pipes in self._all:
            for fd in pipes.fds.values():
                asyncio.get_running_loop().remove_reader(fd)

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        for pipes in self._all:
            self._watch(pipes)

    async def drained(self) -> None:
        """Wait until everybody who could write has ended."""
        while self._all:
            self._ended.clear()
            await self._ended.wait()

    def read_all(self) -> None:
        """Read what is there now."""
        for pipes in tuple(self._all):
            for name in tuple(pipes.fds):
                while name in pipes.fds and self._read(pipes, name):
                    pass

    def close(self) -> None:
        """Close all."""
        for pipes in tuple(self._all):
            for name in tuple(pipes.fds):
                self._drop(pipes, name)

    def _watch(self, pipes: _Pipes) -> None:
        for name, fd in pipes.fds.items():
            asyncio.get_running_loop().add_reader(fd, self._readable, pipes, name)

    def _readable(self, pipes: _Pipes, name: str) -> None:
        self._before()
        if name in pipes.fds:
            self._read(pipes, name)

    def _read(self, pipes: _Pipes, name: str) -> bool:
        """Read once; whether there was something."""
        try:
            data = os.read(pipes.fds[name], READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if text := pipes.decoders[name].decode(data, final=not data):
            self._on_output(self._message(name, text, pipes.parent))
        if not data:
            self._drop(pipes, name)
        return bool(data)

    def _drop(self, pipes: _Pipes, name: str) -> None:
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
