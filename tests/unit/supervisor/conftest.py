"""One supervisor for each module of tests, and a new link to it for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from sandbox.link.link import Link

from ...support.supervisorprocess import SupervisorProcess


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupervisorProcess]:
    """A running supervisor."""
    made = SupervisorProcess(tmp_path_factory.mktemp("supervisor"))
    yield made
    made.stop()


@pytest.fixture
async def link(machine: SupervisorProcess) -> AsyncIterator[Link]:
    """A link to it."""
    async with machine.link() as made:
        yield made
