"""Cells of bash, and shell commands of Python cells, in a container."""

from __future__ import annotations

import anyio
import pytest

from sandbox.kernels.models import ExecutionResult
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from ..support.controllers import text_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session(manager: SessionManager) -> Session:
    return await manager.open(Caller("alice"))


@pytest.fixture
async def bash(session: Session) -> str:
    async with session.use():
        return (await session.kernels.start("bash")).kernel_id


async def execute(
    session: Session, code: str, kernel_id: str = "", timeout_s: float = 60
) -> ExecutionResult:
    async with session.use():
        execution = await session.kernels.execute(code, timeout_s=timeout_s, kernel_id=kernel_id)
        with anyio.fail_after(120):
            return await execution.wait()


async def test_a_cell_of_bash_says_how_it_ended_and_what_became_of_its_variables(
    session: Session, bash: str
) -> None:
    async def run(code: str, timeout_s: float = 60) -> tuple[str, str, str]:
        result = await execute(session, code, bash, timeout_s)
        return result.status, result.state, result.error.value if result.error else text_of(result)

    assert await run("v=5; cat; sleep 100 & echo up") == ("ok", "kept", "up\n")
    assert await run("(exit 3)") == ("error", "kept", "3")
    status, state, said = await run('v=6\necho "abc')
    assert (status, state) == ("error", "kept")
    assert said.startswith("line 2: unexpected EOF while looking for matching `\"'")
    status, state, said = await run("sleep 60; echo never", timeout_s=1)
    assert (status, state, said) == ("timeout", "kept", "")
    assert await run("echo $v; for i in 1 2; do echo o$i; echo e$i >&2; done") == (
        *("ok", "kept"),
        "5\no1\ne1\no2\ne2\n",
    )
    assert await run("exit 0") == ("ok", "restarted", "")
    assert await run("echo [$v]") == (
        *("ok", "kept"),
        "[a new shell, without the variables of the last: exit 0]\n[]\n",
    )
    assert (await run("set -e; false; echo never"))[:2] == ("error", "restarted")
    assert (await run("kill -9 $$"))[:2] == ("error", "restarted")


async def test_shell_commands_of_python_cells_have_no_keyboard(session: Session) -> None:
    asking = await execute(session, "!python3 -c \"input('Proceed? ')\"", timeout_s=30)
    assert asking.status == "ok"
    assert "EOFError" in text_of(asking)
    server = await execute(session, "!python3 -m http.server 8901 >/dev/null 2>&1 &", timeout_s=30)
    assert (server.status, text_of(server)) == ("ok", "")
    script = await execute(session, "%%bash\ncat\nsleep 100 &\necho whole", timeout_s=30)
    assert (script.status, text_of(script)) == ("ok", "whole\n")
