"""Forks of sessions on a real engine."""

from __future__ import annotations

import textwrap
from functools import partial

import anyio
import pytest

from sandbox.errors import Conflict, NotFound, QuotaExceeded
from sandbox.sessions.forking import Progress
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from ..support.controllers import Controllers, ended, run, shell, start, text_of

ADA = Caller("ada")
GRACE = Caller("grace")

pytestmark = pytest.mark.anyio


async def fork(manager: SessionManager, session: Session, count: int = 1) -> list[Session]:
    """Fork a session; the forks, ready to be used."""
    found = await manager.forks.fork(ADA, session.session_id, count=count)
    return [await manager.get(ADA, each.session_id) for each in found.sessions]


@pytest.mark.timed
async def test_a_fork_has_the_files_and_variables_and_a_container_of_its_own(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.open(ADA)
    code = """
        import json, sqlite3, threading
        rows = [{"id": n} for n in range(1000)]
        table = {"rows": rows}
        rate = 2
        def scaled(value): return value * rate
        class Point:
            def __init__(self, x): self.x = x
            def __eq__(self, other): return self.x == other.x
        point = Point(3)
        conn = sqlite3.connect(":memory:")
        open("note", "w").write("hello")
        1 + 1
    """

    assert (await run(session, textwrap.dedent(code))).status == "ok"
    found = await manager.forks.fork(ADA, session.session_id, name="try")
    (told,) = found.sessions
    other = await manager.get(ADA, told.session_id)
    (state,) = told.kernels
    names = ("json", "sqlite3", "threading", "rows", "table", "rate", "scaled", "Point", "point")
    assert state.carried == names, state.left
    assert [(each.name, each.reason) for each in state.left] == [
        ("conn", "a sqlite3.Connection cannot be pickled")
    ]
    assert (state.problem, found.files_left) == ("", ())
    look = (
        "rate = 10; rows.append(1); print(scaled(2), len(table['rows']), point == Point(3),"
        " open('note').read(), 'conn' in globals(), json.dumps(type(point) is Point))"
    )
    assert text_of(await run(other, look)) == "20 1001 True hello False true\n"
    look = "print(scaled(2), len(rows), conn.execute('select 1').fetchone())"
    assert text_of(await run(session, look)) == "4 1000 (1,)\n"
    assert other.info().forked_from == session.session_id
    assert not other.info().is_default
    assert len(await controllers.containers()) == 2


async def test_the_files_of_a_fork_are_as_they_were_and_what_is_left_out_is_told(
    manager: SessionManager,
) -> None:
    session = await manager.open(ADA)
    make = (
        "mkdir -p deep/er empty; echo text > deep/er/file; ln -s deep/er/file link;"
        "ln -s /etc/passwd away; echo run > run; chmod 750 run; ln run twin; mkfifo pipe;"
        "touch 'odd\nname' ./-x; mkdir ro; touch ro/x; chmod 500 ro;"
        "touch -d '2001-02-03 04:05:06.789' old; python3 -c 'import socket;"
        ' s = socket.socket(socket.AF_UNIX); s.bind("sock")\''
    )
    assert (await shell(session, make)).exit_code == 0
    found = await manager.forks.fork(ADA, session.session_id)
    assert sorted(found.files_left) == [
        "./pipe: a named pipe is left out",
        "./sock: a socket is left out",
    ]
    (told,) = found.sessions
    assert told.files == 9
    other = await manager.get(ADA, told.session_id)
    look = (
        "cat link; readlink away; [ twin -ef run ] && echo same; stat -c '%n %a %y' run ro old;"
        "ls -A1q; ls empty ro"
    )
    there, here = [(await shell(each, look)).stdout.splitlines() for each in (session, other)]
    assert here == [line for line in there if line not in ("pipe", "sock")]
    assert here[:3] == ["text", "/etc/passwd", "same"]


async def test_several_forks_begin_alike_and_go_their_own_ways(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.open(ADA)
    await run(session, "import random; data = [random.random() for _ in range(10**5)]")
    forks = await fork(manager, session, 2)
    for n, each in enumerate(forks):
        assert text_of(await run(each, f"data.append({n}); print(len(data))")) == "100001\n"
    sums = {text_of(await run(each, "print(sum(data[:10**5]))")) for each in (session, *forks)}
    assert len(sums) == 1
    assert text_of(await run(session, "print(len(data))")) == "100000\n"
    assert len(await controllers.containers()) == 3


async def test_a_fork_that_may_not_be_leaves_nothing(
    manager: SessionManager, controllers: Controllers
) -> None:
    session = await manager.open(ADA)
    with pytest.raises(QuotaExceeded):
        await manager.forks.fork(ADA, session.session_id, count=8)
    with pytest.raises(NotFound):
        await manager.forks.fork(GRACE, session.session_id)
    running = await start(session, "import time; time.sleep(60)")
    with pytest.raises(Conflict, match="running a cell"):
        await manager.forks.fork(ADA, session.session_id)
    await running.cancel()
    await ended(running)
    assert [info.session_id for info in manager.list(ADA)] == [session.session_id]
    assert len(await controllers.containers()) == 1


@pytest.mark.parametrize("doing", ["opening", "files", "variables"])
async def test_a_fork_that_is_given_up_leaves_nothing(
    manager: SessionManager, controllers: Controllers, doing: str
) -> None:
    session = await manager.open(ADA)
    code = """
        class Slow:
            def __reduce__(self): __import__("time").sleep(60)
        slow, kept = Slow(), 1
    """
    await run(session, textwrap.dedent(code))
    await shell(session, "head -c 60M /dev/zero > file")
    progress = Progress()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(manager.forks.fork, ADA, session.session_id, progress=progress))
        with anyio.fail_after(60):
            while not progress.doing.startswith(doing):
                await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()
    assert [info.session_id for info in manager.list(ADA)] == [session.session_id]
    assert len(await controllers.containers()) == 1
    assert text_of(await run(session, "print(kept)")) == "1\n"


async def test_a_fork_stays_a_fork_after_a_restart_of_the_controller(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as manager:
        session = await manager.open(ADA)
        await run(session, "kept = 1")
        (other,) = await fork(manager, session)
    async with controllers.running() as manager:
        found = await manager.get(ADA, other.session_id)
        assert found.info().forked_from == session.session_id
        assert text_of(await run(found, "print(kept)")) == "1\n"


async def test_what_modules_of_the_workspace_and_large_arrays_need_is_there(
    manager: SessionManager,
) -> None:
    session = await manager.open(ADA)
    await shell(session, "mkdir lib; echo 'def double(x): return 2 * x' > lib/mine.py")
    code = (
        "import sys; sys.path.insert(0, '/workspace/lib'); import mine; big = bytearray(80 << 20)"
    )
    await run(session, code)
    found = await manager.forks.fork(ADA, session.session_id)
    other = await manager.get(ADA, found.sessions[0].session_id)
    assert text_of(await run(other, "print(mine.double(len(big)))")) == f"{2 * (80 << 20)}\n"


async def test_variables_beyond_the_bound_are_told(
    controllers: Controllers,
) -> None:
    controllers.settings = {"fork_state_bytes": 1_000_000}
    async with controllers.running() as manager:
        session = await manager.open(ADA)
        await run(session, "big, small = b'x' * 5_000_000, 1")
        found = await manager.forks.fork(ADA, session.session_id)
        (state,) = found.sessions[0].kernels
        assert state.carried == ("small",)
        assert "5 MB or more of it" in state.left[0].reason
