"""Forks of sessions on a real engine."""

from __future__ import annotations

import pytest

from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from ..support.controllers import Controllers, run, text_of

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
    import textwrap

    assert (await run(session, textwrap.dedent(code))).status == "ok"
    found = await manager.forks.fork(ADA, session.session_id, name="try")
    (told,) = found.sessions
    other = await manager.get(ADA, told.session_id)
    (state,) = told.kernels
    names = ("json", "sqlite3", "threading", "rows", "table", "rate", "scaled", "Point", "point")
    assert state.carried == names
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
