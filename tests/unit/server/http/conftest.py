"""The HTTP API over an engine in memory."""

from __future__ import annotations

import httpx
import pytest


@pytest.fixture
async def session(http: httpx.AsyncClient) -> str:
    """The path of an open session."""
    answer = await http.post("/mcp/v1/sessions", json={})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]
