"""A terminal in memory that echoes what is typed; ``exit`` and a carriage return end it."""

from __future__ import annotations

import asyncio
from typing import Any

from sandbox.link.link import Stream
from sandbox.outputs.eventlog import EventLog

LOG_BYTES = 4 * 1024 * 1024
PROMPT = b"$ "


class FakeTerminal:
    """One terminal, which lives on while nobody is attached."""

    def __init__(self, terminal_id: str, rows: int, cols: int, pid: int) -> None:
        self.terminal_id = terminal_id
        self.rows = rows
        self.cols = cols
        self.pid = pid
        self._output = EventLog.bytes_log(LOG_BYTES)
        self._output.append(PROMPT)
        self._line = b""
        self._ending: dict[str, int | None] = {"exit_code": None, "signal": None}

    def info(self) -> dict[str, Any]:
        """What ``terminal.list`` says of it."""
        return {
            "terminal_id": self.terminal_id,
            "pid": self.pid,
            "rows": self.rows,
            "cols": self.cols,
            "alive": not self._output.is_over,
            "exit_code": self._ending["exit_code"],
            "first_offset": self._output.first,
            "last_offset": self._output.end,
        }

    def type(self, data: bytes) -> None:
        """Echo what is typed; a whole line is a command."""
        self._output.append(data.replace(b"\r", b"\r\n"))
        *lines, self._line = (self._line + data).split(b"\r")
        for line in lines:
            if line.strip() == b"exit":
                self.exit(0, None)
                return
            said = line[5:] + b"\r\n" if line.startswith(b"echo ") else b""
            self._output.append(said + PROMPT)

    def exit(self, exit_code: int | None, signal: int | None) -> None:
        """End it, by itself or by a signal."""
        if not self._output.is_over:
            self._ending = {"exit_code": exit_code, "signal": signal}
            self._output.finish()

    async def attach(self, stream: Stream, after: int) -> None:
        """Send what it shows from ``after`` on and type what comes, until either side ends."""

        async def tell() -> None:
            offset = min(after, self._output.end)
            await stream.send_json({"offset": offset})
            async for got in self._output.follow(offset):
                await stream.send(b"".join(got.entries))
            await stream.send_json(self._ending)
            stream.end()

        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell())
            async for message in stream:
                self.type(message.data)
            telling.cancel()
