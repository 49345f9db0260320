"""What the provisioner and its bridge tell each other: a JSON object in each line.

The provisioner says ``{"do": …}``: ``start`` (with ``config`` and ``connection``), ``interrupt``
and ``kill``. The bridge says ``{"told": …}``: ``started``, ``failed`` (with ``reason``) and
``ended`` (with ``code`` and ``reason``). When the provisioner's end is closed, however that comes,
the bridge removes what it opened and ends.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator
from typing import Any, cast

import anyio

MAX_LINE = 256 * 1024


class Control:
    """The bridge's end."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    async def orders(self) -> AsyncGenerator[dict[str, Any]]:
        """What is to be done, until the provisioner has gone."""
        rest = b""
        while True:
            await anyio.wait_readable(self._end)
            try:
                data = self._end.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE:
                return
            for line in lines:
                read = json.loads(line)
                if isinstance(read, dict):
                    yield cast("dict[str, Any]", read)

    def tell(self, told: str, **more: object) -> None:
        """Tell the provisioner something; one that has gone does not hear it."""
        line = json.dumps({"told": told, **more}).encode() + b"\n"
        try:
            self._end.send(line)  # few and short: they always have room
        except OSError:
            return
