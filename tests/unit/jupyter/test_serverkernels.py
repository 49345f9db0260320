"""A session's kernels over those of a Jupyter Server, which others use at the same time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sandbox.errors import Conflict, NotFound
from sandbox.sessions.notices import noticing

from .conftest import Managed

pytestmark = pytest.mark.anyio

SLEEP = "import time\nfor _ in range(600): time.sleep(0.05)"


async def until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.02)


@asynccontextmanager
async def other_client(managed: Managed, jupyter_id: str) -> AsyncGenerator[Any]:
    """Somebody else's client of a kernel."""
    client = managed.kernels.get_kernel(jupyter_id).client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=30)
        yield client
    finally:
        client.stop_channels()


async def own_id(managed: Managed) -> str:
    """The server's id of the default kernel."""
    (found,) = managed.kernels.list_kernel_ids()
    return found


async def test_cells_keep_variables_and_answer_as_in_a_sandbox(managed: Managed) -> None:
    kernels = managed.session.kernels
    await (await kernels.execute("x = 6")).wait()
    good = await (await kernels.execute("print('hi')\nx * 7")).wait()
    assert (good.status, good.state, good.execution_count) == ("ok", "kept", 2)
    assert [each["output_type"] for each in good.outputs] == ["stream", "execute_result"]
    bad = await (await kernels.execute("1/0")).wait()
    assert bad.status == "error"
    assert bad.error is not None
    assert bad.error.name == "ZeroDivisionError"
    late = await (await kernels.execute(SLEEP, timeout_s=0.3)).wait()
    assert (late.status, late.state) == ("timeout", "kept")
    asking = await (await kernels.execute("input()")).wait()
    assert asking.status == "error"
    assert (await kernels.check("x = (")).status == "incomplete"


async def test_a_kernel_that_is_killed_ends_its_cell_as_died(managed: Managed) -> None:
    kernels = managed.session.kernels
    ended = await (await kernels.execute("import os; os.kill(os.getpid(), 9)")).wait()
    assert (ended.status, ended.state) == ("died", "lost")
    assert "SIGKILL" in (ended.reason or "")


async def test_a_kernel_of_somebody_elses_is_listed_and_can_be_used(managed: Managed) -> None:
    jupyter_id = await managed.kernels.start_kernel(kernel_name="python3")
    async with managed.session.use():
        (info,) = managed.session.kernels.infos
    async with other_client(managed, jupyter_id) as theirs:
        await theirs.execute("mine = 5", reply=True, timeout=30)
        got = await (
            await managed.session.kernels.execute("mine + 1", kernel_id=info.kernel_id)
        ).wait()
    assert got.outputs[0]["data"]["text/plain"] == "6"


async def test_the_first_cell_of_a_kernel_that_was_found_shows_what_it_prints(
    managed: Managed,
) -> None:
    """What a kernel publishes before anybody listens is lost."""
    for _ in range(3):
        jupyter_id = await managed.kernels.start_kernel(kernel_name="python3")
        async with managed.session.use():
            own = f"k-{jupyter_id.replace('-', '')}"
            got = await (await managed.session.kernels.execute("print(1)", kernel_id=own)).wait()
        assert [each["text"] for each in got.outputs] == ["1\n"]


async def test_a_kernel_that_somebody_has_shut_down_is_no_more(managed: Managed) -> None:
    jupyter_id = await managed.kernels.start_kernel(kernel_name="python3")
    async with managed.session.use():
        (info,) = managed.session.kernels.infos
    await managed.kernels.shutdown_kernel(jupyter_id, now=True)
    async with managed.session.use():
        assert managed.session.kernels.infos == ()
    with pytest.raises(NotFound):
        await managed.session.kernels.execute("1", kernel_id=info.kernel_id)


async def test_one_that_had_cells_of_ours_is_dead_until_it_is_restarted(managed: Managed) -> None:
    kernels = managed.session.kernels
    await (await kernels.execute("x = 1")).wait()
    running = await kernels.execute(SLEEP)
    await running.executing.wait()
    await managed.kernels.shutdown_kernel(await own_id(managed), now=True)
    ended = await running.wait()
    assert (ended.status, ended.state) == ("died", "lost")
    async with managed.session.use():
        pass
    with pytest.raises(Conflict):
        await kernels.execute("x")
    await kernels.restart()
    assert (await (await kernels.execute("'x' in dir()")).wait()).outputs[0]["data"][
        "text/plain"
    ] == "False"


async def test_a_restart_by_somebody_else_ends_the_cell_and_is_told_once(managed: Managed) -> None:
    kernels = managed.session.kernels
    running = await kernels.execute(SLEEP)
    await running.executing.wait()
    await managed.kernels.restart_kernel(await own_id(managed))
    ended = await running.wait()
    assert (ended.status, ended.state) == ("interrupted", "restarted")
    for expected in (1, 0):
        with noticing() as notices:
            async with managed.session.use():
                pass
        assert len(notices) == expected
    assert (await (await kernels.execute("1")).wait()).status == "ok"


async def test_no_interrupt_of_ours_reaches_a_cell_of_somebody_elses(managed: Managed) -> None:
    kernels = managed.session.kernels
    await (await kernels.execute("x = 1")).wait()
    async with other_client(managed, await own_id(managed)) as theirs:
        code = "import time\nfor _ in range(40): time.sleep(0.05)\ndone = True"
        asked = theirs.execute(code)
        while (message := await theirs.get_iopub_msg(timeout=20))["msg_type"] != "execute_input":
            pass
        assert message["parent_header"]["msg_id"] == asked
        ours = await kernels.execute("'done' in dir()", timeout_s=0.3)
        ended = await ours.wait()
        assert (ended.status, ended.state) == ("timeout", "kept")
        # Taken back, or interrupted where it was in the queue already, or quicker than that.
        assert [each.get("ename") for each in ended.outputs] in ([], ["KeyboardInterrupt"], [None])
        reply = await theirs.get_shell_msg(timeout=20)
        assert reply["content"]["status"] == "ok"
    again = await (await kernels.execute("'done' in dir()")).wait()
    assert again.outputs[0]["data"]["text/plain"] == "True"


async def test_our_cell_waits_until_somebody_elses_is_done(managed: Managed) -> None:
    kernels = managed.session.kernels
    await (await kernels.execute("x = 1")).wait()
    async with other_client(managed, await own_id(managed)) as theirs:
        theirs.execute("import time; time.sleep(0.5); y = 2")
        while (await theirs.get_iopub_msg(timeout=20))["msg_type"] != "execute_input":
            pass
        got = await (await kernels.execute("y")).wait()
    assert got.outputs[0]["data"]["text/plain"] == "2"


async def test_a_cell_that_ignores_its_interrupt_costs_nobody_the_kernel(managed: Managed) -> None:
    stubborn = (
        "import time\nkept = 1\nended = time.time() + 2\n"
        "while time.time() < ended:\n"
        "    try: time.sleep(2)\n"
        "    except KeyboardInterrupt: pass"
    )
    kernels = managed.session.kernels
    ended = await (await kernels.execute(stubborn, timeout_s=0.3)).wait()
    assert (ended.status, ended.state) == ("timeout", "kept")
    assert (await (await kernels.execute("kept")).wait()).status == "ok"


async def test_an_unknown_kernelspec_starts_nothing(managed: Managed) -> None:
    with pytest.raises(NotFound):
        await managed.session.kernels.start("no-such-kernel")
    assert managed.kernels.list_kernel_ids() == []
