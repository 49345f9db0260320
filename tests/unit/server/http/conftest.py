"""The HTTP API over an engine in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from mcp.server.transport_security import TransportSecuritySettings

from sandbox.server.application import make_app
from sandbox.server.desk import Desk
from sandbox.server.localtoken import LocalToken

from ....support.applications import started

TOKEN = "0123456789abcdef0123"


@pytest.fixture
async def http(desk: Desk) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the token."""
    app = make_app(
        desk,
        verifier=LocalToken(TOKEN),
        security=TransportSecuritySettings(allowed_hosts=["test"], allowed_origins=[]),
        check=desk.manager.runtime.engine,
    )
    async with started(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            client.headers["Authorization"] = f"Bearer {TOKEN}"
            yield client


@pytest.fixture
async def session(http: httpx.AsyncClient) -> str:
    """The path of an open session."""
    answer = await http.post("/mcp/v1/sessions", json={})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]
