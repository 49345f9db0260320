"""Packages that one session installs and the next gets without the network, in real containers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import resources
from sandbox.cli.wiring import session_manager
from sandbox.config import Settings
from sandbox.policy import load
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session
from sandbox.sessions.slots import take_slot

from ..support.controllers import run, shell
from ..support.outside import Outside
from ..support.packageindex import FakeIndex, fake_index, services, wheel
from ..support.served import RUNTIME

pytestmark = pytest.mark.anyio

FILE = "sharedthing-1.0-py3-none-any.whl"
CALLERS = (Caller("ada"), Caller("eve"))


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    with fake_index() as made:
        made.add("sharedthing", FILE, wheel("sharedthing", padding=300_000))
        yield made


@pytest.fixture
async def manager(
    engine: DockerRuntime, index: FakeIndex, tmp_path: Path
) -> AsyncIterator[SessionManager]:
    """A controller whose package index is the one of the test."""
    known, cache = services(index, tmp_path / "packages")
    egress = replace(Outside().egress, services=known, packages=cache)
    settings = Settings(state_dir=tmp_path, runtime=RUNTIME)  # pyright: ignore[reportArgumentType]
    policies = load(resources.policies())
    with take_slot(tmp_path, "serve") as slot:
        async with session_manager(
            engine, policies, settings, slot, keep=False, egress=egress
        ) as made:
            yield made


async def opened(manager: SessionManager, caller: Caller) -> Session:
    return await manager.open(caller, policy="package-index", reuse=False)


async def test_what_one_session_installed_another_gets_without_asking_the_index(
    manager: SessionManager, index: FakeIndex
) -> None:
    asked: list[int] = []
    for caller in CALLERS:
        session = await opened(manager, caller)
        done = await shell(session, "pip install --quiet sharedthing")
        assert (done.exit_code, done.denials) == (0, ()), done
        cell = await run(session, "import sharedthing; print(sharedthing.version)")
        assert cell.status == "ok", cell
        asked.append(len(index.asked))
        assert session.network.info().received_bytes > 300_000
    assert index.count(f"/files/{FILE}") == 1
    assert asked[0] == asked[1]  # not even for its page


async def test_what_was_installed_by_a_command_can_be_imported_at_once(
    manager: SessionManager,
) -> None:
    session = await opened(manager, CALLERS[0])
    cell = await run(session, "import sharedthing")
    assert cell.error is not None
    assert cell.error.name == "ModuleNotFoundError"
    cell = await run(session, "%pip install --quiet sharedthing\nimport sharedthing")
    assert cell.status == "ok", cell
