"""The whole application on loopback over an engine in memory, for clients of Jupyter Servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvicorn

from sandbox.config import Settings
from sandbox.server.application import make_app
from sandbox.server.auth import security_settings
from sandbox.server.connections import Connections
from sandbox.server.desk import Desk
from sandbox.server.grants import Grant
from sandbox.server.scopes import SCOPES

from .applications import listening
from .wsclient import WsClient
from .wsserver import Verifier

ALICE, BOB, READER = "alice0123456789abcde", "bob00123456789abcdef", "reader3456789abcdef0"
"""The tokens: of two principals, and one of the first's that may read files only."""
GRANTS = {
    ALICE: Grant("alice", "lab", "a1", frozenset(SCOPES)),
    BOB: Grant("bob", "lab", "b1", frozenset(SCOPES)),
    READER: Grant("alice", "viewer", "a2", frozenset({"files:read"})),
}


@dataclass
class JupyterServer:
    """A server that runs."""

    port: int
    desk: Desk
    connections: Connections
    clients: list[WsClient] = field(default_factory=list[WsClient])

    async def opened(self, **wanted: str) -> str:
        """A session of Alice's with its first kernel running; its id."""
        session = await self.desk.manager.open(GRANTS[ALICE].caller(), **wanted)
        await (await session.kernels.execute("pass")).wait()
        return session.session_id

    def http(self, token: str = ALICE, **headers: str) -> httpx.AsyncClient:
        """An HTTP client with a token, or without when that is empty."""
        known = {"Authorization": f"Bearer {token}"} if token else {}
        base = f"http://127.0.0.1:{self.port}"
        return httpx.AsyncClient(base_url=base, headers={**known, **headers}, timeout=30)

    async def socket(
        self, path: str, token: str = ALICE, protocols: tuple[str, ...] = (), **headers: str
    ) -> WsClient:
        """A WebSocket that has shaken hands; its token is in its address, as pages do it."""
        at = f"{path}?session_id=s&token={token}" if token else path
        client = await WsClient.to(self.port, at, headers, protocols)
        self.clients.append(client)
        return client


@asynccontextmanager
async def serving_jupyter(desk: Desk) -> AsyncIterator[JupyterServer]:
    """Serve a desk's sessions until the end of the block."""
    connections = Connections(256, 256)
    app = make_app(
        desk,
        verifier=Verifier(GRANTS),
        security=security_settings(Settings(state_dir=Path("/nowhere"))),
        check=desk.manager.runtime.engine,
    )
    config = uvicorn.Config(
        app, log_config=None, timeout_graceful_shutdown=1, **connections.options()
    )
    async with listening(config) as (_, listener):
        server = JupyterServer(listener.getsockname()[1], desk, connections)
        try:
            yield server
        finally:
            for client in server.clients:
                client.close()
