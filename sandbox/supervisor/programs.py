"""Programs: one process with pipes for what it reads and writes, run to its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.errors import InfrastructureError, InvalidRequest
from sandbox.link import wire
from sandbox.link.stream import Stream
from sandbox.supervisor import oom
from sandbox.supervisor.children import Children, Exit
from sandbox.supervisor.pipes import Descriptor
from sandbox.supervisor.requests import strings, text, variables
from sandbox.supervisor.tasks import Background, alongside

GRACE_S = 0.1
"""How long output is awaited after the program's end, from whoever else still holds its pipes."""
KILLED = 128 + signal.SIGKILL
"""A shell's exit code where what it ran was killed."""
MAX_TIMEOUT_S = 7 * 24 * 3600.0

Sink = Callable[[bytes, int], Awaitable[None]]
"""Takes what a program writes, and ``wire.BYTES`` for its stdout or ``wire.STDERR``."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be run, and for how long at most; None for as long as it takes."""

    argv: list[str]
    env: Mapping[str, str]
    cwd: str
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Programs:
    """Starts programs, and does the operation ``process.run``."""

    children: Children
    env: Mapping[str, str]
    workspace: str
    tasks: Background

    def launch(self, request: Mapping[str, Any]) -> Launch:
        """What a request wants to have run."""
        argv = strings(request, "argv")
        command = text(request, "command", "")
        if bool(argv) == bool(command):
            raise InvalidRequest("Either command or argv says what to run.")
        timeout_s = request.get("timeout_s")
        if timeout_s is not None and not _is_timeout(timeout_s):
            raise InvalidRequest(f"timeout_s must be from 0 to {MAX_TIMEOUT_S:.0f} seconds.")
        return Launch(
            argv or ["bash", "-c", command],
            {**self.env, **variables(request, "env")},
            os.path.join(self.workspace, text(request, "cwd", "")),
            timeout_s,
        )

    async def run(self, stream: Stream) -> None:
        """``process.run``"""
        program = Program(self.launch(stream.request), self.children)
        try:
            async with alongside(_feed(stream, program)):
                ending = await program.run(stream.send)
            await stream.send_json(ending)
            stream.end()
        finally:
            program.close(self.tasks)


class Program:
    """A process that runs from the making of this on.

    Raises:
        FileError: The working directory or the program cannot be used.
        InfrastructureError: There is no room for another process, or for its pipes.
    """

    def __init__(self, launch: Launch, children: Children) -> None:
        self._timeout_s, self._oom_before = launch.timeout_s, oom.read()
        self._started = time.monotonic()
        try:
            (in_r, in_w), (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe(), os.pipe()
        except OSError as exc:
            raise InfrastructureError("No pipe can be made: too many files are open.") from exc
        self._stdin, self._stdout, self._stderr = Descriptor(in_w), _Output(out_r), _Output(err_r)
        try:
            self.child = children.spawn(
                launch.argv, env=launch.env, cwd=launch.cwd, stdin=in_r, stdout=out_w, stderr=err_w
            )
        except BaseException:
            for end in (self._stdin, self._stdout, self._stderr):
                end.close()
            raise
        finally:
            for fd in (in_r, out_w, err_w):
                os.close(fd)

    async def run(self, sink: Sink) -> dict[str, Any]:
        """Hand on what it writes, as fast as that is taken, until it has ended.

        When its time is over it is killed with all that it has started.

        Returns:
            ``exit_code``, ``signal``, ``timed_out``, ``duration_s``, and ``oom``: whether it was
            killed because memory ran out, or the last that it ran was; None when nothing tells.
        """
        async with alongside(
            self._stdout.pump(sink, wire.BYTES), self._stderr.pump(sink, wire.STDERR)
        ):
            timed_out = await self._wait()
            duration_s = time.monotonic() - self._started
            async with asyncio.TaskGroup() as rest:
                rest.create_task(self._stdout.finished())
                rest.create_task(self._stderr.finished())
        ending = self.child.exit.result()
        return {
            "exit_code": ending.code,
            "signal": ending.signal,
            "timed_out": timed_out,
            "duration_s": duration_s,
            "oom": self._is_oom(ending),
        }

    def _is_oom(self, ending: Exit) -> bool | None:
        if self.child.is_out_of_memory:
            return True
        number = signal.SIGKILL if ending.code == KILLED else ending.signal
        return oom.verdict(self._oom_before, signal=number, killed=self.child.killed)[0]

    async def write(self, data: bytes) -> None:
        """Give it something to read; what it does not want to read is let go."""
        try:
            await self._stdin.write(data)
        except OSError:
            self._stdin.close()

    def end_input(self) -> None:
        """Say that there is nothing more to read."""
        self._stdin.close()

    async def kill(self) -> None:
        """Kill it with all that it has started, and wait until they are gone."""
        self.child.kill_tree()
        await asyncio.shield(self.child.exit)
        await self.child.tree_gone()

    def close(self, tasks: Background) -> None:
        """Let go of it; kills it if it still runs."""
        if self.child.alive:
            self.child.kill_tree()
        self._stdin.close()
        for output in (self._stdout, self._stderr):
            tasks.start(output.discard())

    async def _wait(self) -> bool:
        """Wait for the end; whether the time was up first, in which case everything was killed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(self.child.exit)
        except TimeoutError:
            await self.kill()
            return True
        return False


class _Output(Descriptor):
    """The reading end of a program's stdout or stderr."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._taken = 0
        self._sent = 0
        self._progress = asyncio.Event()
        self._at_end = False

    async def pump(self, sink: Sink, tag: int) -> None:
        """Hand on what comes until the end."""
        while data := await self.read():
            self._taken += len(data)
            await sink(data, tag)
            self._sent += len(data)
            self._progress.set()
        self._at_end = True
        self._progress.set()

    async def finished(self) -> None:
        """After the program's end: wait until all it wrote is sent, and a little for others'."""
        goal = self._taken + _available(self.fd)
        while self._sent < goal and not self._at_end:
            await self._changed()
        try:
            async with asyncio.timeout(GRACE_S):
                while not self._at_end:
                    await self._changed()
        except TimeoutError:
            pass  # something in the background holds the pipe; it may keep it

    async def discard(self) -> None:
        """Take what still comes, so that what holds the pipe does not die of writing to it."""
        while await self.read():
            pass
        self.close()

    async def _changed(self) -> None:
        self._progress.clear()
        await self._progress.wait()


async def _feed(stream: Stream, program: Program) -> None:
    """Pass on the caller's bytes; then stay, to notice when the caller gives up."""
    async for message in stream:
        if message.tag != wire.BYTES:
            raise InvalidRequest("A program's stdin is sent as bytes.")
        await program.write(message.data)
    program.end_input()
    await stream.wait_reset()


def _available(fd: int) -> int:
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0] if fd >= 0 else 0


def _is_timeout(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value <= MAX_TIMEOUT_S  # type: ignore[operator]
