"""Controllers over an engine in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.sessions.manager import SessionManager
from sandbox.testing import FakeEngine

from .controllers import OPEN, TIGHT, Controllers


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def controllers(engine: FakeEngine, tmp_path: Path) -> Controllers:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "tight.yaml").write_text(TIGHT)
    (policies / "open.yaml").write_text(OPEN)
    return Controllers(engine, tmp_path / "state", policies)


@pytest.fixture
async def manager(controllers: Controllers) -> AsyncIterator[SessionManager]:
    """A controller that closes its sessions at the end, and leaves no container behind."""
    async with controllers.running() as manager:
        yield manager
    assert controllers.container_ids() == []
