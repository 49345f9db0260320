"""A session as a Jupyter Server, over an engine in memory."""

from __future__ import annotations

import httpx
import pytest


@pytest.fixture
def http(anonymous: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client without a token of its own."""
    return anonymous
