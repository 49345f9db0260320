"""A whole server on loopback over an engine in memory, with a session that has a notebook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from sandbox.cli.wiring import session_manager
from sandbox.config import Settings
from sandbox.notebooks.ipynb import write_ipynb
from sandbox.notebooks.models import Cell, Notebook
from sandbox.policy import PolicySet
from sandbox.server.application import make_app
from sandbox.server.auth import security_settings
from sandbox.server.connections import Connections
from sandbox.server.desk import Desk
from sandbox.server.grants import LOCAL_GRANT, Verifiers
from sandbox.server.localtoken import LocalToken
from sandbox.server.tokens import TokenStore
from sandbox.sessions.session import Session
from sandbox.sessions.slots import take_slot
from sandbox.testing import FakeEngine, FakeRuntime

from .applications import listening, started

TOKEN = "0123456789abcdef0123"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
PATH = "a.ipynb"


@dataclass
class RoomServer:
    """The server, and what a test needs of it."""

    port: int
    desk: Desk
    tokens: TokenStore
    session: Session

    @property
    def session_id(self) -> str:
        """Of the session with the notebook."""
        return self.session.session_id

    async def call(
        self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """Ask it something over HTTP."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            url = f"http://127.0.0.1:{self.port}{path}"
            return await client.request(method, url, headers=headers or HEADERS, **more)

    async def write(self, path: str, *sources: str) -> None:
        """Put a notebook into the session's workspace."""
        cells = [Cell(f"cell-{at}", "code", source) for at, source in enumerate(sources)]

        async def pieces() -> AsyncIterator[bytes]:
            yield write_ipynb(Notebook(tuple(cells)))

        async with self.session.use():
            await self.session.files.write(path, pieces(), None)

    async def share(self, *, edit: bool = False, path: str = PATH, **more: Any) -> dict[str, Any]:
        """Share a notebook, and what is told of it."""
        answer = await self.call(
            "POST",
            f"/mcp/v1/sessions/{self.session_id}/notebooks/share",
            json={"path": path, "edit": edit, **more},
        )
        assert answer.status_code == 201, answer.text
        return answer.json()


def bearing(token: str) -> dict[str, str]:
    """The headers of a request with a token."""
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def room_server(folder: Path, policies: PolicySet) -> AsyncIterator[RoomServer]:
    """A server until the block ends."""
    state = folder / "state"
    settings = Settings(state_dir=state)
    with take_slot(state, "serve") as slot, closing(TokenStore(state)) as tokens:
        async with session_manager(
            FakeRuntime(FakeEngine()),
            policies,
            settings,
            slot=slot,
            image_for=lambda name: f"sandbox/{name}:test",
            keep=False,
        ) as manager:
            desk = Desk(manager, tokens=tokens)
            app = make_app(
                desk,
                verifier=Verifiers([tokens, LocalToken(TOKEN)]),
                security=security_settings(settings),
                check=manager.runtime.engine,
            )
            config = uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                timeout_graceful_shutdown=1,
                **Connections(128, 128).options(),
            )
            async with started(app), listening(config) as (_, listener):
                session = await manager.open(LOCAL_GRANT.caller())
                server = RoomServer(listener.getsockname()[1], desk, tokens, session)
                await server.write(PATH, "one", "two")
                yield server
                desk.stop()
