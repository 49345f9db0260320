"""The tools over a session manager whose engine is in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from sandbox import resources
from sandbox.cli.wiring import session_manager
from sandbox.config import Settings
from sandbox.policy import load
from sandbox.server.application import make_app
from sandbox.server.desk import Desk
from sandbox.server.localtoken import LocalToken
from sandbox.server.mcpserver import mcp_server
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.slots import take_slot
from sandbox.testing import FakeEngine, FakeRuntime

from ...support.applications import started

TOKEN = "0123456789abcdef0123"

STRICT = """\
version: 1
description: Only files.
extends: offline
tools: [read_file, write_file]
limits:
  sessions: 1
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def manager(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[SessionManager]:
    own = tmp_path / "policies"
    own.mkdir()
    (own / "strict.yaml").write_text(STRICT)
    state = tmp_path / "state"
    settings = Settings(state_dir=state)
    with take_slot(state, "serve") as slot:
        async with session_manager(
            FakeRuntime(engine),
            load(resources.policies(), own),
            settings,
            slot=slot,
            image_for=lambda name: f"sandbox/{name}:test",
            keep=False,
        ) as manager:
            yield manager


@pytest.fixture
def desk(manager: SessionManager) -> Desk:
    return Desk(manager)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[Client]:
    async with Client(mcp_server(desk)) as client:
        yield client


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that has started."""
    async with started(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


@pytest.fixture
async def anonymous(desk: Desk) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the whole application, without a token."""
    app = make_app(
        desk,
        verifier=LocalToken(TOKEN),
        security=TransportSecuritySettings(allowed_hosts=["test"], allowed_origins=[]),
        check=desk.manager.runtime.engine,
    )
    async with running(app) as client:
        yield client


@pytest.fixture
def http(anonymous: httpx.AsyncClient) -> httpx.AsyncClient:
    """The same with the token."""
    anonymous.headers["Authorization"] = f"Bearer {TOKEN}"
    return anonymous


def words(result: Any) -> str:
    """The text of a tool's answer."""
    return "\n".join(block.text for block in result.content if block.type == "text")
