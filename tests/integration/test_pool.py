"""Sessions whose sandboxes were ready before they were asked for, over the real engine."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from sandbox.container.labels import LABEL_OWNER
from sandbox.errors import SessionLost
from sandbox.sessions import pool as pool_module
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.poolinfo import ShelfInfo

from ..support.controllers import Controllers, shell
from ..support.served import close_all, sandbox, serve
from ..support.waiting import until

ADA = Caller("ada")
KEPT = "version: 1\nextends: offline\npool: {min: 2, max: 4}\n"

pytestmark = pytest.mark.anyio


@pytest.fixture
async def manager(controllers: Controllers, tmp_path: Path) -> AsyncIterator[SessionManager]:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "kept.yaml").write_text(KEPT)
    controllers.policies = [folder]
    async with controllers.running(pool=True) as manager:
        yield manager
    assert await controllers.containers() == []


def shelf(manager: SessionManager) -> ShelfInfo | None:
    found = [info for info in manager.pool.infos() if info.policy == "kept"]
    return found[0] if found else None


async def filled(manager: SessionManager) -> None:
    """Wait until as many are ready as are wanted."""

    def is_so() -> bool:
        kept = shelf(manager)
        return kept is not None and kept.ready >= kept.target and not kept.coming

    await until(is_so, 60)


async def test_a_session_is_there_at_once_with_a_kernel_that_answers(
    manager: SessionManager,
) -> None:
    await filled(manager)
    ready = {each.id for each in await manager.runtime.list({LABEL_OWNER: manager.owner})}
    began = time.monotonic()
    session = await manager.open(ADA, policy="kept")
    took_s = time.monotonic() - began
    assert session.container_id in ready
    assert session.info().was_ready
    assert session.info().checks_passed > 10
    assert took_s < 0.25  # a new one takes longer on any machine
    async with session.use():
        execution = await session.kernels.execute("1 + 1")
        result = await execution.wait(30)
    assert result.outputs[0]["data"]["text/plain"] == "2"
    assert (await shell(session, "id -u")).stdout.strip() == str(session.claim.uid)


async def test_every_ready_container_killed_while_sessions_are_asked_for(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers get sessions that are made for them, and the pool heals."""
    monkeypatch.setattr(pool_module, "LOOK_EVERY_S", 0.2)
    await filled(manager)
    dead = {each.id for each in await manager.runtime.list({LABEL_OWNER: manager.owner})}
    opened = []

    async def open_one() -> None:
        opened.append(await manager.open(ADA, policy="kept", reuse=False))

    async with anyio.create_task_group() as tasks:
        for container_id in dead:
            tasks.start_soon(manager.runtime.remove, container_id)
        for _ in range(3):
            tasks.start_soon(open_one)
    assert len(opened) == 3
    for session in opened:  # who had got one before it was removed loses it, and is told
        with suppress(SessionLost):
            told = await shell(session, "echo here")
            assert (told.status, told.stdout) in (("exited", "here\n"), ("lost", ""))
            assert told.status == "exited" or session.container_id in dead
    await filled(manager)
    session = await manager.open(ADA, policy="kept", reuse=False)
    assert session.container_id not in dead
    assert (await shell(session, "echo here")).stdout == "here\n"


async def test_a_paused_one_is_given_to_nobody(manager: SessionManager) -> None:
    import docker

    await filled(manager)
    client = docker.from_env()
    paused = [each.id for each in await manager.runtime.list({LABEL_OWNER: manager.owner})]
    for container_id in paused:
        client.api.pause(container_id)
    try:
        session = await manager.open(ADA, policy="kept")
        assert session.container_id not in paused
        assert not session.info().was_ready
        assert (await shell(session, "echo here")).stdout == "here\n"
    finally:
        client.close()


async def test_a_killed_controllers_pool_is_removed_and_its_sessions_go_on(tmp_path: Path) -> None:
    with serve(tmp_path, SANDBOX_POOL="true") as served:
        async with served.client() as client:
            opened = await client.call_tool("open_session", {"name": "kept"})
            assert opened.structured_content is not None
            session_id = opened.structured_content["session_id"]
            await client.call_tool("execute_code", {"code": "x = 7", "session_id": session_id})

            def ready() -> int:
                told = sandbox(tmp_path / "state", "pool", "--json")
                assert told.returncode == 0, told.stderr
                return sum(each["ready"] for each in json.loads(told.stdout))

            with anyio.fail_after(60):
                while not await anyio.to_thread.run_sync(ready):
                    await anyio.sleep(0.2)
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait(10)
    with serve(tmp_path, SANDBOX_POOL="true") as served:
        async with served.client() as client:
            told = await client.call_tool("execute_code", {"code": "x", "session_id": session_id})
            assert told.structured_content is not None
            assert told.structured_content["text"] == "7"
        close_all(served)


async def test_the_command_line_shows_what_is_ready(tmp_path: Path) -> None:
    with serve(tmp_path, SANDBOX_POOL="true"):
        told = sandbox(tmp_path / "state", "pool")
        assert told.returncode == 0, told.stderr
        assert "offline" in told.stdout
        assert "ready" in told.stdout.splitlines()[0]
    with serve(tmp_path, SANDBOX_POOL="false"):
        told = sandbox(tmp_path / "state", "pool")
        assert "No policy keeps sandboxes ready" in told.stdout
