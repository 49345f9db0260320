"""Sessions on a real engine: open, use, lose, close, and find again."""

from __future__ import annotations

import time
from typing import Any

import anyio
import anyio.to_thread
import docker
import pytest

from sandbox.container.labels import LABEL_OWNER, LABEL_SANDBOX
from sandbox.errors import ImageMissing, NotFound, SessionLost
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from ..support.controllers import Controllers, ended, run, shell, start, text_of
from ..support.waiting import until

ALICE = Caller("alice")
MALLORY = Caller("mallory")
CLOSE_S = 2.0

FORK_BOMB = """
import os, subprocess
for _ in range(40):
    subprocess.Popen(["bash", "-c", "trap '' HUP TERM INT; setsid sleep 1000 & exec sleep 1000"])
subprocess.Popen(
    ["bash", "-c", "bomb() { bomb | bomb & }; bomb"],
    start_new_session=True,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
print("lit")
"""

pytestmark = pytest.mark.anyio


@pytest.mark.timed
async def test_a_session_runs_cells_commands_and_files_and_is_gone_when_closed(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.open(ALICE)
    assert text_of(await run(session, "x = 6 * 7\nprint(x)")) == "42\n"
    assert text_of(await run(session, "open('note', 'w').write('hello')\nprint(x)")) == "42\n"
    assert (await shell(session, "cat note")).stdout == "hello"
    info = session.info()
    assert info.runtime == controllers.runtime
    assert [kernel.name for kernel in info.kernels] == ["python3"]
    assert info.checks_passed > 10
    assert len(await controllers.containers()) == 1
    began = time.monotonic()
    await manager.close(ALICE, session.session_id)
    assert time.monotonic() - began < CLOSE_S
    assert await controllers.containers() == []


async def test_callers_that_come_at_once_share_one_default_session(
    manager: SessionManager, controllers: Controllers
) -> None:
    texts: list[str] = []

    async def call(number: int) -> None:
        session = await manager.get(ALICE)
        texts.append(text_of(await run(session, f"print({number})")))

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(call, number)
    assert sorted(texts) == [f"{number}\n" for number in range(6)]
    assert len(await controllers.containers()) == 1


async def test_sessions_are_opened_at_once_and_see_nothing_of_each_other(
    manager: SessionManager,
) -> None:
    async def call(name: str) -> None:
        session = await manager.get(Caller(name))
        await run(session, f"open('mine', 'w').write('{name}')")
        assert (await shell(session, "cat mine; echo *")).stdout == f"{name}mine\n"

    async with anyio.create_task_group() as tasks:
        for name in ("one", "two", "three", "four"):
            tasks.start_soon(call, name)


async def test_an_opening_that_is_given_up_leaves_no_container(
    manager: SessionManager, controllers: Controllers
) -> None:
    for after_s in (0.0, 0.05, 0.1, 0.2, 0.3, 0.4):
        with anyio.move_on_after(after_s):
            await manager.open(ALICE, reuse=False)
        known = [await manager.get(ALICE, info.session_id) for info in manager.list(ALICE)]
        left = {found.labels[LABEL_SANDBOX] for found in await controllers.containers()}
        assert left == {session.claim.sandbox_id for session in known}
        for session in known:
            await manager.close(ALICE, session.session_id)


async def test_the_next_controller_finds_variables_and_a_cell_that_still_runs(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        await run(session, "x = 'kept'")
        execution = await start(
            session, "import time\nprint('begun', flush=True)\ntime.sleep(3)\nprint(x)"
        )
        await until(lambda: execution.snapshot().outputs)
    async with controllers.running() as second:
        again = await second.get(ALICE)
        assert again.session_id == session.session_id
        found = await second.execution(ALICE, execution.execution_id)
        result = await ended(found)  # pyright: ignore[reportArgumentType]  # it still runs
        assert result.status == "ok"
        assert text_of(result) == "begun\nkept\n"
        assert text_of(await run(again, "print(x)")) == "kept\n"


async def test_what_is_no_session_of_ours_is_removed_and_what_is_anothers_is_left(
    controllers: Controllers, engine: DockerRuntime
) -> None:
    async with controllers.running("serve") as ours, controllers.running("stdio") as theirs:
        mine, other = await ours.get(ALICE), await theirs.get(ALICE)
        # An owner's container that no session knows, as a controller killed at a bad moment leaves.
        spec = mine.sandbox.spec
        labels = {**spec.labels, LABEL_SANDBOX: "sb-orphan"}
        orphan = await engine.create(
            spec.model_copy(update={"name": f"{spec.name}-orphan", "labels": labels})
        )
        for manager in (ours, theirs):
            await manager.sweep()
        assert (await engine.inspect(orphan)).state == "missing"
        for session in (mine, other):
            assert text_of(await run(session, "print(1)")) == "1\n"
        with pytest.raises(NotFound):
            await ours.get(ALICE, other.session_id)


async def test_a_container_removed_behind_our_back_is_said_to_be_lost_and_why(
    manager: SessionManager, engine: DockerRuntime
) -> None:
    session = await manager.get(ALICE)
    execution = await start(session, "import time; time.sleep(60)")
    await engine.remove(session.container_id or "")
    result = await ended(execution)
    assert (result.status, result.state) == ("lost", "lost")
    with pytest.raises(SessionLost, match="removed from outside"):
        await manager.get(ALICE)
    again = await manager.get(ALICE)
    assert again.session_id != session.session_id
    assert text_of(await run(again, "print(1)")) == "1\n"


async def test_a_supervisor_that_is_killed_inside_loses_the_session_and_its_container(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.get(ALICE)
    # The main process is the engine's init; its one child is the supervisor, of the session's uid.
    killed = "import os, signal\nfor pid in os.listdir('/proc'):\n"
    killed += "    if pid.isdigit() and int(pid) not in (1, os.getpid()):\n"
    killed += "        os.kill(int(pid), signal.SIGKILL)\n"
    execution = await start(session, killed)
    result = await ended(execution)
    assert result.status in ("died", "lost")
    await until(lambda: not manager.list(ALICE))
    await session.wait_over()
    assert await controllers.containers() == []


async def test_a_link_that_is_cut_is_made_again_and_the_cell_goes_on(
    manager: SessionManager,
) -> None:
    session = await manager.get(ALICE)
    code = "import time\nprint('begun', flush=True)\nx = 1\ntime.sleep(1)\nprint('on')"
    execution = await start(session, code)
    await until(lambda: execution.snapshot().outputs)
    assert session.sandbox.link is not None
    await session.sandbox.link.aclose()
    result = await ended(execution)
    assert (result.status, text_of(result)) == ("ok", "begun\non\n")
    assert text_of(await run(session, "print(x)")) == "1\n"


@pytest.mark.timed
async def test_a_session_full_of_processes_that_hear_no_signal_closes_within_two_seconds(
    manager: SessionManager, controllers: Controllers, engine: DockerRuntime
) -> None:
    session = await manager.get(ALICE)
    result = await run(session, FORK_BOMB)
    if controllers.runtime == "runc":
        # In gVisor the bomb may take its own kernel down, and the session with it.
        assert text_of(result) == "lit\n"
        assert session.container_id is not None
        with anyio.fail_after(20):
            while (await engine.stats(session.container_id)).pids < session.policy.limits.pids // 2:
                await anyio.sleep(0.05)
    began = time.monotonic()
    await manager.close(ALICE, session.session_id)
    assert time.monotonic() - began < CLOSE_S
    assert await controllers.containers() == []


async def test_a_session_that_is_not_used_expires_and_says_so(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.get(ALICE)
    await run(session, "x = 1")
    controllers.ahead_s += session.policy.limits.idle_s + 1
    await manager.sweep()
    assert await controllers.containers() == []
    with pytest.raises(SessionLost, match="expired"):
        await manager.get(ALICE)


async def test_an_image_that_is_not_there_is_named_and_leaves_nothing(
    controllers: Controllers,
) -> None:
    controllers.image_for = lambda name: f"sandbox/{name}:absent"
    async with controllers.running() as manager:
        with pytest.raises(ImageMissing, match="absent"):
            await manager.open(ALICE)
    assert await controllers.containers() == []


async def test_the_engine_holds_what_it_was_asked_for(manager: SessionManager) -> None:
    session: Session = await manager.open(ALICE, policy="offline")

    def inspect() -> dict[str, Any]:
        client = docker.from_env()
        try:
            return client.api.inspect_container(session.container_id)
        finally:
            client.close()

    found = await anyio.to_thread.run_sync(inspect)
    host, config = found["HostConfig"], found["Config"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["Binds"] in (None, [])
    # No volume that could be left behind: what is mounted is gone with the container.
    assert {mount["Type"] for mount in found["Mounts"]} <= {"tmpfs"}
    assert config["User"] == f"{session.claim.uid}:{session.claim.uid}"
    assert config["Labels"][LABEL_OWNER] == manager.owner
