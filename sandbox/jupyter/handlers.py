"""``/mcp/v1`` of a Jupyter Server: its own authentication, then the MCP application.

Tornado serves the request and an ASGI application answers it, in the same event loop. What the
application sends goes out at once, so that server-sent events stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import APIHandler
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from sandbox.jupyter.access import grant_for
from sandbox.server.auth import GUARDED

Message = dict[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
FindApplication = Callable[[], Awaitable[Application]]

KEPT_FROM_IT = frozenset({b"authorization", b"cookie"})
"""Headers that the application has no need of."""
BROWSERS_SEND = "accept, content-type, authorization, x-xsrftoken, mcp-protocol-version, \
mcp-session-id, mcp-method, mcp-name, last-event-id, sandbox-session"


class McpHandler(APIHandler):
    """Serves MCP to whoever Jupyter Server has authenticated."""

    def initialize(self, find_application: FindApplication) -> None:
        """Tornado: called with what the route was made with."""
        self._find_application = find_application
        self._gone = asyncio.Event()

    async def get(self) -> None:
        """Serve a stream that a client listens to."""
        await self._serve()

    async def post(self) -> None:
        """Serve a message."""
        await self._serve()

    async def delete(self) -> None:
        """End an MCP session."""
        await self._serve()

    @allow_unauthenticated
    def options(self, *args: Any, **kwargs: Any) -> None:
        """Tell a browser which headers a page of an allowed origin may send."""
        super().options(*args, **kwargs)
        self.set_header("Access-Control-Allow-Headers", BROWSERS_SEND)

    def on_connection_close(self) -> None:
        """Tornado: the client is gone."""
        self._gone.set()
        super().on_connection_close()

    async def _serve(self) -> None:
        user = self.current_user
        if user is None:
            raise HTTPError(403)
        grant = await grant_for(self, user)
        if not grant.permitted:
            raise HTTPError(403, "The authorizer of this server allows none of the tools.")
        application = await self._find_application()
        given: list[Message] = [{"type": "http.request", "body": self.request.body}]

        async def receive() -> Message:
            if given:
                return given.pop()
            await self._gone.wait()
            return {"type": "http.disconnect"}

        scope = {**self._scope(), "sandbox.grant": grant}
        await application(scope, receive, self._send)
        if not self._gone.is_set():
            self._gone.set()
            with suppress(StreamClosedError):
                await self.finish()

    async def _send(self, message: Message) -> None:
        if self._gone.is_set():
            return
        if message["type"] == "http.response.start":
            self.set_status(message["status"])
            for name, value in message.get("headers", ()):
                self.set_header(name.decode("latin-1"), value.decode("latin-1"))
            return
        if body := message.get("body", b""):
            self.write(body)  # pyright: ignore[reportUnknownMemberType]  # its types are incomplete
        try:
            await self.flush()
        except StreamClosedError:
            self._gone.set()

    def _scope(self) -> Message:
        request = self.request
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in request.headers.get_all()
        ]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.protocol,
            "path": GUARDED,
            "raw_path": GUARDED.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [each for each in headers if each[0] not in KEPT_FROM_IT],
            "client": (request.remote_ip or "", 0),
            "server": None,
        }
