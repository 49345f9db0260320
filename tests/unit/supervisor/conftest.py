"""One supervisor for each module of tests, and a new link to it for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from sandbox.link.link import Link

from ...support.supervisorprocess import Cells, SupervisorProcess


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


@pytest.fixture
async def cells(link: Link) -> Cells:
    """A new kernel, attached to."""
    kernel_id = uuid.uuid4().hex
    with anyio.fail_after(30):
        await link.call("kernel.start", kernel_id=kernel_id, name="python3")
        return Cells(link, kernel_id)
