"""Sessions that are frozen when nothing goes on in them, over the real engine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions import sweeper as sweeper_module
from sandbox.sessions.idleness import AGAIN_S
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from ..support.controllers import Controllers, run, shell, text_of
from ..support.served import RUNTIME, close_all, sandbox, serve
from ..support.waiting import until

ADA = Caller("ada")
FREEZE_S = 300
LOOKS = 5
"""A look may find what is just ending."""
KEEPING = "version: 1\nworkspace: {size: 64MiB, persistent: true}\n"
SOON = "version: 1\nlimits: {freeze: 1s}\n"

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(RUNTIME != "runc", reason="under gVisor nothing is frozen"),
]


@pytest.fixture(autouse=True)
def policies(controllers: Controllers, tmp_path: Path) -> Path:
    """Policies beside the built-in ones."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "keeping.yaml").write_text(KEEPING)
    (folder / "soon.yaml").write_text(SOON)
    controllers.policies = [folder]
    return folder


@pytest.fixture
async def session(manager: SessionManager) -> AsyncIterator[Session]:
    """One that has been used."""
    session = await manager.open(ADA)
    await run(session, "x = 6 * 7")
    yield session
    await session.end("closed", "the test is over")


async def look(controllers: Controllers, manager: SessionManager, session: Session) -> bool:
    """Let time pass until it is looked at, and say whether it is frozen now."""
    before = session.lease.last_used + FREEZE_S - time.time()
    controllers.ahead_s = max(controllers.ahead_s + AGAIN_S, before)
    await manager.sweep()
    return session.info().frozen_since is not None


async def freeze(controllers: Controllers, manager: SessionManager, session: Session) -> None:
    """Have it frozen."""
    for _ in range(LOOKS):
        if await look(controllers, manager, session):
            break
        await anyio.sleep(0.3)
    assert session.info().awake_because == ()
    assert await state(manager, session) == "paused"


async def state(manager: SessionManager, session: Session) -> str:
    return (await manager.runtime.inspect(session.container_id or "")).state


async def test_one_that_somebody_else_has_paused_answers_within_seconds(
    manager: SessionManager, session: Session
) -> None:
    await manager.runtime.pause(session.container_id or "")
    with anyio.fail_after(10):
        assert text_of(await run(session, "print(x)")) == "42\n"
    assert await state(manager, session) == "running"


async def test_a_frozen_session_answers_at_once_and_has_what_it_had(
    controllers: Controllers, manager: SessionManager, session: Session
) -> None:
    await freeze(controllers, manager, session)
    began = time.monotonic()
    result = await run(session, "x")
    took_s = time.monotonic() - began
    assert result.outputs[0]["data"]["text/plain"] == "42"
    assert took_s < 1  # benchmarks say how much; a new session takes longer
    assert await state(manager, session) == "running"
    assert session.info().frozen_since is None


async def test_clocks_are_right_and_no_time_of_the_session_runs_out_meanwhile(
    controllers: Controllers, manager: SessionManager, session: Session
) -> None:
    await run(session, "import time; m, t = time.monotonic(), time.time()")
    frozen_s = 0.0
    for _ in range(3):  # what the last cell said is acknowledged later, which lets it go on once
        await freeze(controllers, manager, session)
        await anyio.sleep(4)  # longer than what is timed below may take
        frozen_s = time.time() + controllers.ahead_s - (session.info().frozen_since or 0)
        if frozen_s > 3.5:
            break
    assert frozen_s > 3.5
    told = await run(session, "print(time.time(), time.monotonic() - m - (time.time() - t))")
    now_s, drift_s = map(float, text_of(told).split())
    assert abs(now_s - time.time()) < 3
    assert abs(drift_s) < 0.5
    async with session.use():
        execution = await session.kernels.execute("time.sleep(1); 'whole'", timeout_s=3.5)
        result = await execution.wait(30)
    assert result.status == "ok"
    assert (await shell(session, "timeout 3.5 sleep 1 && echo whole")).stdout == "whole\n"


BY_ITSELF = {
    "a thread that sleeps": (
        "import threading, time; threading.Thread(target=time.sleep, args=(99,)).start()"
    ),
    "a timer": "import threading; t = threading.Timer(99, print); t.start()",
    "a thread that works": (
        "import threading\nrun = True\ndef work():\n    while run: pass\n"
        "threading.Thread(target=work, daemon=True).start()"
    ),
    "a task": (
        "import asyncio\nasync def tick():\n    while True: await asyncio.sleep(9)\n"
        "task = asyncio.create_task(tick())"
    ),
    "a process": "import subprocess; p = subprocess.Popen(['sleep', '99'])",
    "a daemon": "!setsid nohup sleep 99 >/dev/null 2>&1 &",
    "an alarm": "import signal; signal.alarm(99)",
    "a process that waits for input for a time": (
        "import subprocess as s; p = s.Popen(['bash', '-c', 'read -t 99'], stdin=s.PIPE)"
    ),
}


@pytest.mark.parametrize("what", BY_ITSELF)
async def test_what_would_act_by_itself_keeps_it_awake_and_is_told(
    controllers: Controllers, manager: SessionManager, session: Session, what: str
) -> None:
    assert (await run(session, BY_ITSELF[what])).status == "ok"
    await anyio.sleep(0.2)
    assert not await look(controllers, manager, session)
    assert session.info().awake_because
    assert await state(manager, session) == "running"


WAITING = {
    "a thread that waits for another": (
        "import threading; w = threading.Event(); "
        "threading.Thread(target=w.wait, daemon=True).start()"
    ),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor; p = ThreadPoolExecutor(2); "
        "list(p.map(str, range(4)))"
    ),
    "a server that waits for a caller": (
        "import socket, threading; s = socket.create_server(('127.0.0.1', 8123)); "
        "threading.Thread(target=s.accept, daemon=True).start()"
    ),
    "a process that waits for input": (
        "import subprocess; p = subprocess.Popen(['cat'], stdin=subprocess.PIPE)"
    ),
    "a process that is stopped": (
        "import os, signal, subprocess; p = subprocess.Popen(['sleep', '99']); "
        "os.kill(p.pid, signal.SIGSTOP)"
    ),
    "a task that waits for another": (
        "import asyncio; e = asyncio.Event(); task = asyncio.create_task(e.wait())"
    ),
}


@pytest.mark.parametrize("what", WAITING)
async def test_what_only_waits_for_others_does_not(
    controllers: Controllers, manager: SessionManager, session: Session, what: str
) -> None:
    assert (await run(session, WAITING[what])).status == "ok"
    await freeze(controllers, manager, session)
    assert (await run(session, "x")).outputs[0]["data"]["text/plain"] == "42"


async def test_an_idle_terminal_and_a_kernel_of_bash_do_not_and_go_on_where_they_were(
    controllers: Controllers, manager: SessionManager, session: Session
) -> None:
    async with session.use():
        terminal = (await session.terminals.open()).terminal_id
        await session.terminals.write(terminal, "y=here", ["enter"])
        bash = (await session.kernels.start("bash")).kernel_id
        execution = await session.kernels.execute("z=there", kernel_id=bash)
        assert (await execution.wait(30)).status == "ok"
    await freeze(controllers, manager, session)
    async with session.use():
        await session.terminals.write(terminal, "echo $y$y", ["enter"])
        with anyio.fail_after(20):
            while "herehere" not in (await session.terminals.read(terminal, 0.2)).screen:
                pass
        execution = await session.kernels.execute("echo $z", kernel_id=bash)
        assert text_of(await execution.wait(30)) == "there\n"


async def test_a_program_in_a_terminal_keeps_it_awake(
    controllers: Controllers, manager: SessionManager, session: Session
) -> None:
    async with session.use():
        terminal = (await session.terminals.open()).terminal_id
        await session.terminals.write(terminal, "sleep 99", ["enter"])
        await session.terminals.read(terminal, 1)
    for _ in range(LOOKS):  # the shell may take a while to begin it
        assert not await look(controllers, manager, session)
        if any("sleep 99" in each for each in session.info().awake_because):
            break
        await anyio.sleep(0.3)
    assert any("sleep 99" in each for each in session.info().awake_because)


async def test_a_frozen_session_expires_without_going_on(
    controllers: Controllers, manager: SessionManager, session: Session
) -> None:
    await freeze(controllers, manager, session)
    controllers.ahead_s += 1800
    await manager.sweep()
    assert session.state == "expired"
    assert await state(manager, session) == "missing"


async def test_the_files_of_a_frozen_session_that_expires_are_saved(
    controllers: Controllers, manager: SessionManager
) -> None:
    session = await manager.open(ADA, policy="keeping", workspace="w")
    await shell(session, "echo kept > file")
    await freeze(controllers, manager, session)
    controllers.ahead_s += 1800
    await manager.sweep()
    await session.wait_over()
    assert session.state == "expired"
    again = await manager.open(ADA, policy="keeping", workspace="w")
    assert (await shell(again, "cat file")).stdout == "kept\n"


async def test_a_frozen_session_is_closed(
    controllers: Controllers, manager: SessionManager, session: Session
) -> None:
    await freeze(controllers, manager, session)
    closed = await manager.close(ADA, session.session_id)
    assert closed.state == "closed"
    assert await controllers.containers() == []


async def test_a_frozen_session_whose_container_is_removed_is_lost(
    controllers: Controllers, manager: SessionManager, session: Session
) -> None:
    await freeze(controllers, manager, session)
    await manager.runtime.remove(session.container_id or "")
    await until(lambda: session.state == "lost", 30)


async def test_a_killed_controllers_frozen_session_goes_on_with_the_next_one(
    engine: DockerRuntime, policies: Path, tmp_path: Path
) -> None:
    settings = {"SANDBOX_POLICIES": str(policies), "SANDBOX_DEFAULT_POLICY": "soon"}
    with serve(tmp_path, **settings) as served:
        async with served.client() as client:
            opened = await client.call_tool("open_session", {"name": "kept"})
            assert opened.structured_content is not None
            session_id = opened.structured_content["session_id"]
            asked = {"code": "x = 7", "session_id": session_id}
            await client.call_tool("execute_code", asked)
            with anyio.fail_after(10 * sweeper_module.FREEZE_EVERY_S):
                while True:
                    told = await client.call_tool("get_session", {"session_id": session_id})
                    assert told.structured_content is not None
                    if told.structured_content["frozen_since"]:
                        break
                    await anyio.sleep(0.2)
            assert "frozen" in told.content[0].text  # pyright: ignore[reportAttributeAccessIssue]
            listed = sandbox(tmp_path / "state", "sessions", "list")
            assert "frozen" in listed.stdout
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait(10)
    with serve(tmp_path, **settings) as served:
        async with served.client() as client:
            asked = {"code": "x", "session_id": session_id}
            told = await client.call_tool("execute_code", asked)
            assert told.structured_content is not None
            assert told.structured_content["text"] == "7"
        close_all(served)
