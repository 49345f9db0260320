"""Server-sent events as an answer: each is sent as it comes, and a comment while nothing does.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.errorgroups import one_error
from sandbox.errors import InvalidRequest
from sandbox.server.http.operation import EVENTS

SILENCE_S = 15.0
"""How long nothing is sent at most, so that nobody between takes the connection for dead."""
RETRY_MS = 1000
LAST = "end"
"""The id of the last event: a reader that comes back with it is told to stop."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; its id is where a reader that has it goes on."""

    kind: str
    id: str
    data: bytes
    """JSON."""

    @classmethod
    def of(cls, kind: str, id: str | int, data: Any) -> Event:
        """An event that holds a JSON value."""
        return cls(kind, str(id), json.dumps(data, ensure_ascii=False).encode())

    def encoded(self) -> bytes:
        """As it is sent: line ends of JSON are white space between values."""
        data = self.data.replace(b"\r", b" ").replace(b"\n", b" ")
        return f"event: {self.kind}\nid: {self.id}\ndata: ".encode() + data + b"\n\n"


class EventStream(Response):
    """Events until they end, the reader goes, or the server stops.

    Nothing is kept for a reader that is slow: it is waited for, and the next is asked for when the
    last was taken.
    """

    media_type = EVENTS

    def __init__(
        self,
        events: AsyncGenerator[Event],
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._waiting = waiting
        self._sending = anyio.Lock()
        self._sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        async with aclosing(self._events):
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            if scope["method"] != "HEAD":
                await self._send(send, f"retry: {RETRY_MS}\n\n".encode())
                async with one_error() as tasks:
                    tasks.start_soon(self._keep_alive, send)
                    tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
                    with self._waiting():
                        async for event in self._events:
                            await self._send(send, event.encoded())
                    tasks.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, data: bytes) -> None:
        async with self._sending:
            self._sent += 1
            await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            sent = self._sent
            await anyio.sleep(SILENCE_S)
            if sent == self._sent:
                await self._send(send, b": nothing new\n\n")


async def _until_gone(receive: Receive, serving: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    serving.cancel()


def last_id(request: Request) -> int | None:
    """Where a reader goes on; None for one that has had the last event.

    Raises:
        InvalidRequest: It is no id of an event.
    """
    found = request.headers.get("last-event-id", "").strip()
    if found == LAST:
        return None
    if found and not (found.isascii() and found.isdecimal() and len(found) <= 18):
        raise InvalidRequest(
            "Last-Event-ID is no id of an event here.",
            remedy="Send the id of the last event that you got, or leave the header out.",
        )
    return int(found or 0)
