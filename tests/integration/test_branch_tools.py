"""Branches and checkpoints of real kernels, through the front door and over controllers' ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from mcp import Client

from sandbox.errors import Conflict
from sandbox.kernels.models import ExecutionResult
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from ..support.controllers import Controllers, text_of

ALICE = Caller("alice")

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Client]]


async def call(client: Client, tool: str, **given: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, given)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def run(session: Session, code: str, kernel_id: str = "") -> ExecutionResult:
    async with session.use():
        execution = await session.kernels.execute(code, kernel_id=kernel_id)
        with anyio.fail_after(120):
            return await execution.wait()


async def test_data_is_branched_three_ways_and_the_best_is_kept(connect: Connect) -> None:
    async with connect() as client:
        await call(client, "execute_code", code="data = bytearray(64 << 20)\nscore = 0\nimport os")
        made = [await call(client, "branch_kernel") for _ in range(3)]
        for number, each in enumerate(made):
            kernel = {"kernel_id": each["kernel_id"]}
            code = f"data[0] = {number}\nscore = {number}\nprint(score, data[0], len(data))"
            ran = await call(client, "execute_code", code=code, **kernel)
            assert ran["text"] == f"{number} {number} {64 << 20}"
        for each in made[:2]:
            await call(client, "stop_kernel", kernel_id=each["kernel_id"])
        best = await call(
            client, "execute_code", code="score, data[0]", kernel_id=made[2]["kernel_id"]
        )
        own = await call(client, "execute_code", code="score, data[0]")

    assert (best["text"], own["text"]) == ("(2, 2)", "(0, 0)")
    assert made[0]["branch_of"] == "k-default"


@pytest.mark.parametrize(
    "death", ["import os\nos._exit(3)", "hog = []\nwhile True: hog.append(bytearray(50_000_000))"]
)
async def test_a_kernel_that_is_gone_is_rolled_back(connect: Connect, death: str) -> None:
    async with connect() as client:
        await call(client, "execute_code", code="x = 1")
        await call(client, "checkpoint_kernel", name="good")
        died = await client.call_tool("execute_code", {"code": f"x = 2\n{death}"})
        back = await call(client, "rollback_kernel", name="good")
        after = await call(client, "execute_code", code="x")

    assert died.structured_content is not None
    assert died.structured_content["status"] == "died"
    assert back["kernel_id"] == "k-default"
    assert after["text"] == "1"


async def test_files_come_back_with_a_checkpoint_that_has_them(connect: Connect) -> None:
    async with connect() as client:
        await call(client, "write_file", path="f", content="one")
        await call(client, "execute_code", code="x = 1")
        kept = await call(client, "checkpoint_kernel", name="good", files=True)
        await call(client, "write_file", path="f", content="two")
        await call(client, "write_file", path="more/g", content="new")
        await call(client, "execute_code", code="x = 2")
        await call(client, "rollback_kernel", name="good")
        after = await call(
            client, "execute_code", code="import os\nx, open('f').read(), os.path.exists('more')"
        )

    assert kept["files"]
    assert after["text"] == "(1, 'one', False)"


async def test_a_rollback_is_repeated_and_ends_what_runs(session: Session) -> None:
    await run(session, "x = [1]")
    async with session.use():
        await session.kernels.branches.checkpoint("a")
    for _ in range(3):
        await run(session, "x.append(2)")
        async with session.use():
            running = await session.kernels.execute("import time\ntime.sleep(60)")
            with anyio.fail_after(30):
                await running.executing.wait()
            back = await session.kernels.branches.roll_back("a")
            ended = await running.wait(10)
        assert (ended.status, ended.state) == ("interrupted", "rolled_back")
        assert back.ended == [ended.execution_id]
        assert text_of(await run(session, "print(x)")) == "[1]\n"


async def test_each_cell_can_be_undone_where_checkpoints_are_made_before_them(
    manager: SessionManager,
) -> None:
    session = await manager.open(ALICE, checkpoint="auto")
    for code in ("x = 1", "x = 2", "x = 3", "x = 4"):
        result = await run(session, code)
    async with session.use():
        _, kept = await session.kernels.branches.checkpoints()
        await session.kernels.branches.roll_back(result.checkpoint)

    assert result.checkpoint == "auto-4"
    assert [each.name for each in kept] == ["auto-2", "auto-3", "auto-4"]
    assert text_of(await run(session, "print(x)")) == "3\n"


async def test_a_thread_is_named_as_what_cannot_be_copied_and_runs_on(session: Session) -> None:
    await run(
        session,
        "import threading\nstop = threading.Event()\n"
        "t = threading.Thread(target=stop.wait, name='loader')\nt.start()",
    )
    async with session.use():
        with pytest.raises(Conflict, match="loader"):
            await session.kernels.branches.branch()
        with pytest.raises(Conflict, match="loader"):
            await session.kernels.branches.checkpoint("a")
    assert text_of(await run(session, "print(t.is_alive())\nstop.set()\nt.join()")) == "True\n"
    async with session.use():
        await session.kernels.branches.branch()


async def test_the_next_controller_has_the_branches_and_rolls_back(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as manager:
        session = await manager.open(ALICE)
        await run(session, "x = 1")
        async with session.use():
            await session.kernels.branches.checkpoint("a")
            branch = await session.kernels.branches.branch()
        await run(session, "x = 2", branch.kernel_id)
        await run(session, "x = 3")
    async with controllers.running() as manager:
        again = await manager.get(ALICE, session.session_id)
        found = {each.kernel_id: each.branch_of for each in again.kernels.infos}
        assert text_of(await run(again, "print(x)", branch.kernel_id)) == "2\n"
        async with again.use():
            await again.kernels.branches.roll_back("a")
        assert text_of(await run(again, "print(x)")) == "1\n"

    assert found == {"k-default": "", branch.kernel_id: "k-default"}


@pytest.fixture
async def session(manager: SessionManager) -> Session:
    return await manager.open(ALICE)
