"""The engine, and controllers on it that are killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.container.labels import LABEL_OWNER
from sandbox.runtimes.docker.runtime import DockerRuntime


@pytest.fixture
async def engine() -> AsyncIterator[DockerRuntime]:
    engine = DockerRuntime.connect_engine()
    yield engine
    await engine.aclose()


@pytest.fixture
async def folder(tmp_path: Path, engine: DockerRuntime) -> AsyncIterator[Path]:
    """Where the controllers keep their state; also a test that fails leaves no container."""
    yield tmp_path
    for owner in tmp_path.glob("state/controllers/*/owner"):
        for left in await engine.list({LABEL_OWNER: owner.read_text().strip()}):
            await engine.remove(left.id)
