"""One supervisor for each module of tests, and a new link to it for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from sandbox.link.link import Link

from .machine import Machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A running supervisor."""
    made = Machine(tmp_path_factory.mktemp("supervisor"))
    yield made
    made.stop()


@pytest.fixture
async def link(machine: Machine) -> AsyncIterator[Link]:
    """A link to it."""
    async with machine.link() as made:
        yield made
