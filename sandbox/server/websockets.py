"""WebSockets behind the gate: which there are, how many, for how long, and that each is on record.

A handshake is refused with the status and the problem that REST would answer; what is accepted ends
with a close code of RFC 6455, or with 4000 and the status that says why. How much a client may send
is bounded where frames are read (``sandbox.server.framing``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from sandbox.audit import DEFECT, Call, recorded
from sandbox.bulkheads.shares import Owner, Shares
from sandbox.errorgroups import one_error
from sandbox.errors import NotFound, QuotaExceeded, SandboxError
from sandbox.server.auth import GUARDED
from sandbox.server.credentials import JUPYTER, SUBPROTOCOL
from sandbox.server.desk import Desk
from sandbox.server.grants import Grant
from sandbox.server.problems import problem, problem_of, status_of
from sandbox.server.scopes import WEBSOCKET_SCOPES

MAX_IN_ALL = 256
MAX_PER_PRINCIPAL = 32

NORMAL = 1000
GOING_AWAY = 1001
DEFECTIVE = 1011
STATUS = 4000
"""Added to an HTTP status, it is the close code for the same."""
TIMED_OUT = STATUS + 408

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WebSocketBounds:
    """How long a connection may last."""

    idle_s: float = 1800.0
    """Without a message, either way."""
    total_s: float = 12 * 3600.0
    send_s: float = 30.0
    """For one message to be taken by a client that reads slowly."""


@dataclass(frozen=True, slots=True)
class WebSocketRoute:
    """What is served at a path."""

    path: str
    """Its pattern, below ``/mcp/v1`` or else from ``/jupyter`` on; it stands in
    ``WEBSOCKET_SCOPES``."""
    serve: Callable[[WebSocket], Awaitable[None]]
    """Accepts a WebSocket and serves it to its end. It may leave the end to the caller: a
    disconnection and an error of ours may be raised through."""
    subprotocol: str = ""
    """What the answer selects when it is offered, instead of our own."""

    @property
    def pattern(self) -> re.Pattern[str]:
        """What a whole path must match."""
        whole = self.path if self.path.startswith(f"{JUPYTER}/") else GUARDED + self.path
        return compile_path(whole)[0]


class WebSockets:
    """Serves WebSockets that have passed the gate; every other path of theirs is refused.

    All are closed when the desk stops.

    Raises:
        ValueError: A path has no scope.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[WebSocketRoute],
        desk: Desk,
        *,
        bounds: WebSocketBounds | None = None,
        places: Shares | None = None,
    ) -> None:
        if unscoped := [each.path for each in routes if each.path not in WEBSOCKET_SCOPES]:
            raise ValueError(f"the WebSockets at {unscoped[0]} have no scope")
        self._app = app
        self._routes = [(each.pattern, each) for each in routes]
        self._desk = desk
        self._bounds = bounds or WebSocketBounds()
        self._places = places or Shares(
            "WebSocket connections", MAX_IN_ALL, MAX_PER_PRINCIPAL, MAX_PER_PRINCIPAL
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection to its end; its record is written then."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        grant: Grant = scope["sandbox.grant"]
        route = self._found(scope)
        shown = route.path if route else scope["path"].removeprefix(GUARDED)
        wanted = (route.subprotocol if route else "", SUBPROTOCOL)
        connection = _Connection(scope, receive, send, self._bounds, wanted)
        tool, audit = f"WEBSOCKET {shown}", self._desk.manager.audit
        asked = {"path": scope["path"], "query": scope["query_string"].decode("latin-1")}
        scope["sandbox.asked"] = asked
        with recorded(audit, "websocket", tool, asked, grant.principal, grant.token_id) as call:
            call.session_id = scope.get("path_params", {}).get("session_id", "")
            owner = Owner(grant.principal, call.session_id)
            try:
                route = self._admit(route, grant, owner)
            except SandboxError as exc:
                await connection.fail(exc, call)
                return
            try:
                await self._serve(route, connection, call)
            finally:
                self._places.give(owner)

    def _found(self, scope: Scope) -> WebSocketRoute | None:
        path: str = scope["path"]
        for pattern, route in self._routes:
            # ``$`` of a route's pattern also matches before a line feed at the end.
            if "\n" not in path and (match := pattern.match(path)):
                scope["path_params"] = match.groupdict()
                return route
        return None

    def _admit(self, route: WebSocketRoute | None, grant: Grant, owner: Owner) -> WebSocketRoute:
        """Take a place, if the connection may be.

        Raises:
            SandboxError: It may not.
        """
        if route is None:
            raise NotFound("There is no WebSocket here.")
        grant.require_scope(WEBSOCKET_SCOPES[route.path], "this WebSocket")
        self._desk.manager.audit.require()
        if why := self._places.take(owner):
            raise QuotaExceeded(f"There is no place: {why}.", remedy="Close one, or try later.")
        return route

    async def _serve(self, route: WebSocketRoute, connection: _Connection, call: Call) -> None:
        try:
            with self._desk.waiting():
                async with one_error() as tasks:
                    tasks.start_soon(connection.watch, tasks.cancel_scope)
                    await route.serve(connection.websocket)
                    tasks.cancel_scope.cancel()
        except WebSocketDisconnect:
            return
        except SandboxError as exc:
            await connection.fail(exc, call)
        except Exception:  # the outermost edge of a connection
            logger.exception("a WebSocket at %s", route.path)
            call.failed(DEFECT)
            answer = problem(500, "A defect of the server; its log has the details.")
            await connection.end(answer, DEFECTIVE, "A defect of the server.")
        else:
            code, reason = connection.ending
            if self._desk.is_stopping:
                code, reason = GOING_AWAY, "The server stops."
            await connection.end(problem(503, reason), code, reason)


class _Connection:
    """One connection as its route sees it."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        bounds: WebSocketBounds,
        subprotocols: Sequence[str] = (SUBPROTOCOL,),
    ) -> None:
        self._scope = scope
        self._subprotocols = subprotocols
        self._receive = receive
        self._send = send
        self._bounds = bounds
        self._began_at = self._used_at = anyio.current_time()
        self._is_accepted = False
        self._is_over = False
        self.ending = (NORMAL, "")
        """The close code and reason, when the route leaves the end to us."""
        self.websocket = WebSocket(scope, self.receive, self.send)

    async def receive(self) -> Message:
        """The next message of the client."""
        message = await self._receive()
        self._used_at = anyio.current_time()
        self._is_over = self._is_over or message["type"] == "websocket.disconnect"
        return message

    async def send(self, message: Message) -> None:
        """Send one; the answer to a handshake selects a sub-protocol of ours if it was offered."""
        if message["type"] == "websocket.accept":
            self._is_accepted = True
            offered: list[str] = self._scope["subprotocols"]
            chosen = next((each for each in self._subprotocols if each in offered), None)
            message = {**message, "subprotocol": chosen}
        elif message["type"] in ("websocket.close", "websocket.http.response.start"):
            self._is_over = True
        with anyio.move_on_after(self._bounds.send_s) as patience:
            await self._send(message)
        self._used_at = anyio.current_time()
        if patience.cancelled_caught:
            raise WebSocketDisconnect(1006, "the client does not read")

    async def watch(self, serving: anyio.CancelScope) -> None:
        """End the serving of it when its time is over."""
        bounds, now = self._bounds, anyio.current_time()
        while now < (end := min(self._used_at + bounds.idle_s, self._began_at + bounds.total_s)):
            await anyio.sleep(end - now)
            now = anyio.current_time()
        reason = f"Nothing was said for {bounds.idle_s:g} s."
        if now >= self._began_at + bounds.total_s:
            reason = f"It lasted {bounds.total_s:g} s, which is the most; connect again."
        self.ending = TIMED_OUT, reason
        serving.cancel()

    async def fail(self, error: SandboxError, call: Call) -> None:
        """End it with an error of ours."""
        call.raised(error)
        await self.end(problem_of(error), STATUS + status_of(error), error.message)

    async def end(self, answer: Response, code: int, reason: str) -> None:
        """End it, unless it is over: with the answer when it was not accepted, else the code."""
        if self._is_over:
            return
        self._is_over = True
        with anyio.move_on_after(1, shield=True):
            if self._is_accepted:
                short = reason.encode()[:120].decode(errors="ignore")  # RFC 6455 has 123 bytes
                await self._send({"type": "websocket.close", "code": code, "reason": short})
            else:
                await answer(self._scope, self._receive, self._send)
