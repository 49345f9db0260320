"""What every test shares: asynchronous tests run on asyncio, the only backend of the link."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
