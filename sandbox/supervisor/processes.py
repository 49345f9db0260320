"""Commands: one program run to its end, its output as it comes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
import time
from collections.abc import Mapping

from sandbox import wire
from sandbox.errors import InfrastructureError, InvalidRequest
from sandbox.stream import Stream
from sandbox.supervisor.children import Child, Children
from sandbox.supervisor.pipes import Descriptor
from sandbox.supervisor.requests import strings, text, variables
from sandbox.supervisor.tasks import Background, alongside

GRACE_S = 0.1
"""How long output is awaited after the program's end, from whoever else still holds its pipes."""
MAX_TIMEOUT_S = 7 * 24 * 3600.0


class Processes:
    """The operation ``process.run``.

    Args:
        children: Who notices the ends.
        env: What a request's own variables are added to.
        workspace: The working directory, unless the request names another.
        tasks: Where the pipes of what a command left behind are kept open.
    """

    def __init__(
        self,
        children: Children,
        env: Mapping[str, str],
        workspace: str,
        tasks: Background,
    ) -> None:
        self._children = children
        self._env = env
        self._workspace = workspace
        self._tasks = tasks

    async def run(self, stream: Stream) -> None:
        """``process.run``"""
        request = stream.request
        argv = strings(request, "argv")
        command = text(request, "command", "")
        if bool(argv) == bool(command):
            raise InvalidRequest("Either command or argv says what to run.")
        timeout_s = request.get("timeout_s")
        if timeout_s is not None and not _is_timeout(timeout_s):
            raise InvalidRequest(f"timeout_s must be from 0 to {MAX_TIMEOUT_S:.0f} seconds.")
        env = {**self._env, **variables(request, "env")}
        cwd = os.path.join(self._workspace, text(request, "cwd", ""))
        await self._run(stream, argv or ["bash", "-c", command], env, cwd, timeout_s)

    async def _run(
        self,
        stream: Stream,
        argv: list[str],
        env: Mapping[str, str],
        cwd: str,
        timeout_s: float | None,
    ) -> None:
        started = time.monotonic()
        try:
            (in_r, in_w), (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe(), os.pipe()
        except OSError as exc:
            raise InfrastructureError("No pipe can be made: too many files are open.") from exc
        stdin, stdout, stderr = Descriptor(in_w), _Output(out_r), _Output(err_r)
        try:
            child = self._children.spawn(
                argv, env=env, cwd=cwd, stdin=in_r, stdout=out_w, stderr=err_w
            )
        except BaseException:
            for end in (stdin, stdout, stderr):
                end.close()
            raise
        finally:
            for fd in (in_r, out_w, err_w):
                os.close(fd)
        try:
            async with alongside(
                _feed(stream, stdin),
                stdout.pump(stream, wire.BYTES),
                stderr.pump(stream, wire.STDERR),
            ):
                timed_out = await _wait(child, timeout_s)
                async with asyncio.TaskGroup() as rest:
                    rest.create_task(stdout.finished())
                    rest.create_task(stderr.finished())
            ending = child.exit.result()
            await stream.send_json(
                {
                    "exit_code": ending.code,
                    "signal": ending.signal,
                    "timed_out": timed_out,
                    "duration_s": time.monotonic() - started,
                }
            )
            stream.end()
        finally:
            if child.alive:
                child.kill_tree()
            stdin.close()
            for output in (stdout, stderr):
                self._tasks.start(output.discard())


class _Output(Descriptor):
    """The reading end of a program's stdout or stderr."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._taken = 0
        self._sent = 0
        self._progress = asyncio.Event()
        self._at_end = False

    async def pump(self, stream: Stream, tag: int) -> None:
        """Send on what comes, as fast as the caller takes it, until the end."""
        while data := await self.read():
            self._taken += len(data)
            await stream.send(data, tag)
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


async def _feed(stream: Stream, stdin: Descriptor) -> None:
    """Pass on the caller's bytes; then stay, to notice when the caller gives up."""
    async for message in stream:
        if message.tag != wire.BYTES:
            raise InvalidRequest("A program's stdin is sent as bytes.")
        try:
            await stdin.write(message.data)
        except OSError:
            stdin.close()  # it does not read any more, which is its right
    stdin.close()
    await stream.wait_reset()


async def _wait(child: Child, timeout_s: float | None) -> bool:
    """Wait for the end; whether the time was up first, in which case everything was killed."""
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(child.exit)
    except TimeoutError:
        child.kill_tree()
        await asyncio.shield(child.exit)
        return True
    return False


def _available(fd: int) -> int:
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0] if fd >= 0 else 0


def _is_timeout(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value <= MAX_TIMEOUT_S  # type: ignore[operator]
