"""A terminal in memory that echoes what is typed; ``exit`` and a carriage return end it."""

from __future__ import annotations

import asyncio
from typing import Any

from sandbox.link.link import Stream

PROMPT = b"$ "


class FakeTerminal:
    """One terminal, which lives on while nobody is attached.

    Args:
        terminal_id: The caller's name for it.
        rows: Of its screen.
        cols: Of its screen.
        pid: A made-up process id.
    """

    def __init__(self, terminal_id: str, rows: int, cols: int, pid: int) -> None:
        self.terminal_id = terminal_id
        self.rows = rows
        self.cols = cols
        self.pid = pid
        self._output = bytearray(PROMPT)
        self._line = b""
        self._end: tuple[int | None, int | None] | None = None
        self._changed = asyncio.Event()

    def info(self) -> dict[str, Any]:
        """What ``terminal.list`` says of it."""
        return {
            "terminal_id": self.terminal_id,
            "pid": self.pid,
            "rows": self.rows,
            "cols": self.cols,
            "alive": self._end is None,
            "exit_code": self._end[0] if self._end else None,
            "first_offset": 0,
            "last_offset": len(self._output),
        }

    def type(self, data: bytes) -> None:
        """Echo what is typed; a whole line is a command."""
        self._output += data.replace(b"\r", b"\r\n")
        *lines, self._line = (self._line + data).split(b"\r")
        for line in lines:
            if line.strip() == b"exit":
                self.exit(0, None)
                return
            if line.startswith(b"echo "):
                self._output += line[5:] + b"\r\n"
            self._output += PROMPT
        self._changed.set()

    def exit(self, exit_code: int | None, signal: int | None) -> None:
        """End it, by itself or by a signal."""
        if self._end is None:
            self._end = exit_code, signal
        self._changed.set()

    async def attach(self, stream: Stream, after: int) -> None:
        """Send what it shows from ``after`` on and type what comes, until either side ends."""

        async def tell() -> None:
            offset = min(after, len(self._output))
            await stream.send_json({"offset": offset})
            while True:
                if offset < len(self._output):
                    data = bytes(self._output[offset:])
                    offset += len(data)
                    await stream.send(data)
                elif self._end is not None:
                    await stream.send_json({"exit_code": self._end[0], "signal": self._end[1]})
                    stream.end()
                    return
                else:
                    self._changed.clear()
                    await self._changed.wait()

        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell())
            async for message in stream:
                self.type(message.data)
            telling.cancel()
