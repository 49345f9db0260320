"""The engine, and controllers on it that are killed at moments that a seed decides."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.container.labels import LABEL_OWNER
from sandbox.runtimes.docker.runtime import DockerRuntime

SEED = "SANDBOX_FAULTS_SEED"
"""The variable that repeats a run's moments, as far as time can be repeated."""


@pytest.fixture
def seed() -> int:
    """The seed of this run, printed so that a failure tells it."""
    found = int(os.environ.get(SEED, "1"))
    print(f"{SEED}={found}")
    return found


@pytest.fixture
def order(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """What a test decides at random: another one for each test and each seed."""
    return random.Random(f"{request.node.name} {seed}")  # noqa: S311  # moments


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
