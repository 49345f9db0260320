"""Controllers for tests: in the test's own process, or served in a process of their own.

Every session is closed at the end, and a test that leaves a container behind fails. Without an
engine these tests fail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path

import pytest
from mcp import Client

from sandbox.audit import verify
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions.manager import SessionManager

from ..support import stopwatch
from ..support.controllers import Controllers
from ..support.jupyterserver import Installed, install
from ..support.served import RUNTIME, Served, close_all, serve


@pytest.fixture
async def engine() -> AsyncIterator[DockerRuntime]:
    """The engine of this machine."""
    engine = DockerRuntime.connect_engine()
    yield engine
    await engine.aclose()


@pytest.fixture
async def controllers(engine: DockerRuntime, tmp_path: Path) -> AsyncIterator[Controllers]:
    """Controllers that share a state directory; nothing of theirs may be left at the end."""
    made = Controllers(engine, tmp_path / "state", RUNTIME)
    yield made
    left = await made.remove_all()
    assert not left


@pytest.fixture
async def manager(controllers: Controllers) -> AsyncIterator[SessionManager]:
    """One controller."""
    async with controllers.running() as manager:
        yield manager


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One served controller for the tests of a module.

    At the end its record is whole, and no callback of its event loop has taken long.
    """
    folder = tmp_path_factory.mktemp("served")
    slow = folder / "slow"
    watched = {stopwatch.SLOW_CALLBACKS: str(slow)}
    with serve(folder, program=stopwatch.__name__, **watched) as running:
        try:
            yield running
        finally:
            if running.process.poll() is None:
                close_all(running)
    verdict = verify(running.state / "controllers/serve/audit", "serve")
    assert verdict.is_intact, verdict.fault
    assert not slow.exists(), slow.read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A Jupyter Server with the extension."""
    made = install(tmp_path_factory.mktemp("jupyter"))
    made.jupyter("extension", "enable", "sandbox")
    return made


@pytest.fixture
def clean(served: Served) -> Iterator[Served]:
    """The module's controller; no session of this test is left in it."""
    yield served
    close_all(served)


@pytest.fixture
def connect(clean: Served) -> Callable[..., AbstractAsyncContextManager[Client]]:
    """Make MCP clients of the module's controller."""
    return clean.client


@pytest.fixture
def run_server() -> Callable[..., AbstractContextManager[Served]]:
    """Make served controllers of one's own: ``with run_server(folder, "--flag")``."""
    return serve
