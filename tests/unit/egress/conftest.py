from __future__ import annotations

import pytest

from ...support.outside import Outside


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def outside() -> Outside:
    """A made-up world."""
    return Outside()
