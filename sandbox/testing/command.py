"""A command in memory: a shell that knows a few words, and what it wrote for whoever attaches."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sandbox.link import wire
from sandbox.link.stream import Stream
from sandbox.outputs.eventlog import EventLog

LOG_BYTES = 4 * 1024 * 1024

Connect = Callable[[str], Awaitable[bytes]]


class FakeCommand:
    """One command; :meth:`run` does it.

    ``connect`` returns what the gateway answers to a program that asks for a tunnel.
    """

    def __init__(
        self, request: Mapping[str, Any], stdin: bytes, pid: int, connect: Connect
    ) -> None:
        self.command_id = str(request["command_id"])
        self.pid = pid
        self.log: EventLog[tuple[int, bytes]] = EventLog(
            LOG_BYTES,
            lambda entry: len(entry[1]),
            max_entries=LOG_BYTES,
            width=lambda entry: len(entry[1]),
            cut=lambda entry, size: (entry[0], entry[1][size:]),
        )
        self.acknowledged = 0
        self._request = request
        self._stdin = stdin
        self._connect = connect
        self._stopped = asyncio.Event()
        self.ending: dict[str, Any] = {"signal": None, "timed_out": False, "stopped": False}

    def info(self) -> dict[str, Any]:
        """Its entry in the list of commands."""
        told = {"command_id": self.command_id, "pid": self.pid, "alive": not self.log.is_over}
        return {**told, "first_offset": self.log.first, "last_offset": self.log.end}

    async def run(self) -> None:
        """Do what was asked for, unless it takes too long or is stopped first."""
        started = time.monotonic()
        words = self._request.get("argv") or shlex.split(str(self._request.get("command", "")))
        doing = asyncio.create_task(self._do(words))
        stopping = asyncio.create_task(self._stopped.wait())
        try:
            timeout_s = self._request.get("timeout_s")
            await asyncio.wait(
                (doing, stopping), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            self.ending["exit_code"] = doing.result() if doing.done() else None
        finally:
            doing.cancel()
            stopping.cancel()
        if not doing.done():
            how = "stopped" if self._stopped.is_set() else "timed_out"
            self.ending.update({"signal": 9, how: True})
        self.ending["duration_s"] = time.monotonic() - started
        self.log.finish()

    async def attach(self, stream: Stream, after: int) -> None:
        """Send what was written after a position, what comes, and the ending."""

        async def tell() -> None:
            async for got in self.log.follow(after):
                for tag, data in got.entries:
                    await stream.send(data, tag)
            await stream.send_json(self.ending)
            stream.end()

        await stream.send_json({"offset": max(after, self.log.first)})
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell())
            async for message in stream:
                self.acknowledged = int(message.json()["ack"])
            telling.cancel()

    def stop(self) -> None:
        """Kill it."""
        self._stopped.set()

    def write(self, data: bytes, tag: int = wire.BYTES) -> None:
        """Write something."""
        self.log.append((tag, data))

    async def _do(self, words: Sequence[str]) -> int:
        match words:
            case ["echo", *rest]:
                self.write(" ".join(rest).encode() + b"\n")
            case ["warn", *rest]:
                self.write(" ".join(rest).encode() + b"\n", wire.STDERR)
            case ["cat"]:
                self.write(self._stdin)
            case ["pwd"]:
                self.write(str(self._request.get("cwd") or "/workspace").encode() + b"\n")
            case ["connect", authority]:
                self.write(await self._connect(authority))
            case ["sleep", seconds]:
                await asyncio.sleep(float(seconds))
            case ["say", text, "sleep", seconds]:
                self.write(text.encode() + b"\n")
                await asyncio.sleep(float(seconds))
            case ["flood", size]:
                for start in range(0, int(size), 65536):
                    self.write(b"x" * min(65536, int(size) - start))
                    await asyncio.sleep(0)
            case ["exit", code]:
                return int(code)
            case ["true"] | []:
                pass
            case ["false"]:
                return 1
            case _:
                self.write(f"{words[0]}: command not found\n".encode(), wire.STDERR)
                return 127
        return 0
