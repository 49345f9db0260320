"""A real server on loopback whose WebSockets stand behind the gate, for tests of either kind."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from sandbox.config import Settings
from sandbox.errors import Conflict
from sandbox.server.auth import Gate, security_settings
from sandbox.server.connections import Connections
from sandbox.server.credentials import BEARER, SUBPROTOCOL
from sandbox.server.desk import Desk
from sandbox.server.grants import Grant
from sandbox.server.intake import Intake
from sandbox.server.scopes import WEBSOCKET_SCOPES
from sandbox.server.websockets import WebSocketRoute, WebSockets

from .applications import listening
from .wsclient import WsClient

TOKEN = "0123456789abcdef0123"
HEADER = {"Authorization": f"Bearer {TOKEN}"}
ECHO = "/mcp/v1/echo"


def carried(token: str = TOKEN) -> list[str]:
    """The sub-protocols that a browser's page offers."""
    return [SUBPROTOCOL, BEARER + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")]


async def echo(websocket: WebSocket) -> None:
    """Say again what was said, until the client goes."""
    await websocket.accept(subprotocol="made-up")
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await websocket.send(
            {"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")}
        )


async def pour(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.send_bytes(bytes(256 * 1024))


async def raise_late(websocket: WebSocket) -> None:
    await websocket.accept()
    raise Conflict("It has changed meanwhile.")


async def raise_early(websocket: WebSocket) -> None:
    raise Conflict("It has changed meanwhile.")


async def break_late(websocket: WebSocket) -> None:
    await websocket.accept()
    raise RuntimeError("a defect")


ROUTES = {
    "/echo": ("execute", echo),
    "/pour": ("execute", pour),
    "/late": ("execute", raise_late),
    "/early": ("execute", raise_early),
    "/broken": ("execute", break_late),
    "/files/{session_id}": ("files:write", echo),
}


@dataclass
class Verifier:
    """Knows one token as long as it counts."""

    grants: dict[str, Grant]

    async def grant(self, token: str) -> Grant | None:
        return self.grants.get(token)


@dataclass
class Server:
    """A server that runs, and what can be told of it."""

    port: int
    connections: Connections
    verifier: Verifier
    uvicorn: uvicorn.Server
    listener: socket.socket
    denied: list[str] = field(default_factory=list[str])
    clients: list[WsClient] = field(default_factory=list[WsClient])

    async def client(self, path: str = ECHO, *args: Any, **more: Any) -> WsClient:
        """A client that has shaken hands."""
        client = await WsClient.to(self.port, path, *args, **more)
        self.clients.append(client)
        return client

    async def all_leave(self) -> None:
        """Close every client, and wait until the server has noticed."""
        for client in self.clients:
            client.close()
        await self.is_left_by_all()

    async def is_left_by_all(self) -> None:
        """Wait until no connection is counted."""
        with anyio.fail_after(5):
            while self.connections.count:
                await anyio.sleep(0.01)


@asynccontextmanager
async def serving(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> AsyncIterator[Server]:
    for path, (scope, _) in ROUTES.items():
        monkeypatch.setitem(WEBSOCKET_SCOPES, path, scope)
    routes = [WebSocketRoute(path, serve) for path, (_, serve) in ROUTES.items()]
    grant = Grant("alice", "a page", "1234", frozenset({"execute"}))
    verifier, denied, connections = Verifier({TOKEN: grant}), list[str](), Connections(64, 64)
    settings = Settings(state_dir=Path("/nowhere"))
    most = more.pop("most", 64)
    behind = Intake(WebSockets(nothing_else, routes, desk, **more), most)
    gate: ASGIApp = Gate(
        behind, verifier, security_settings(settings), lambda why, _: denied.append(why)
    )
    config = uvicorn.Config(
        gate,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
        **connections.options(),
    )
    async with listening(config) as (server, listener):
        port = listener.getsockname()[1]
        running = Server(port, connections, verifier, server, listener, denied)
        try:
            yield running
        finally:
            for client in running.clients:
                client.close()


async def nothing_else(*_: object) -> None:
    raise AssertionError("a WebSocket went past what serves them")
