"""The controller is killed in the middle of its work; the next one must find everything again."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest

from sandbox.container.labels import LABEL_OWNER
from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support.calls import call, written
from ..support.served import Served, close_all, serve

CELL = """
import time
for second in range(30):
    print("second", second, flush=True)
    time.sleep(1)
print("secret is", secret)
"""
CELL_S = 30

pytestmark = pytest.mark.anyio


def kill(served: Served) -> None:
    """What an out-of-memory killer does to a controller."""
    served.process.kill()
    served.process.wait(30)


async def containers_of(served: Served, engine: DockerRuntime) -> list[str]:
    """The containers of this controller's state directory."""
    owner = (served.state / "controllers/serve/owner").read_text().strip()
    return [found.id for found in await engine.list({LABEL_OWNER: owner})]


async def test_a_cell_outlives_its_controller_and_its_result_is_found_by_its_id(
    folder: Path, engine: DockerRuntime
) -> None:
    with serve(folder) as first:
        async with first.client() as client:
            await call(client, "execute_code", code="secret = 6 * 7")
            began = time.monotonic()
            cell = await call(client, "execute_code", code=CELL, wait=3)
            assert cell["status"] == "running"
            assert "second 0" in written(cell)
            kill(first)
    containers = await containers_of(first, engine)
    assert len(containers) == 1
    with serve(folder) as second:
        async with second.client() as client:
            result = cell
            with anyio.fail_after(CELL_S + 60):
                while result["status"] == "running":
                    result = await call(
                        client, "get_execution", execution_id=cell["execution_id"], wait=10
                    )
            assert result["status"] == "ok"
            assert time.monotonic() - began > CELL_S - 1
            expected = [f"second {number}" for number in range(CELL_S)] + ["secret is 42"]
            assert written(result).splitlines() == expected
            again = await call(client, "execute_code", code="print(secret)")
            assert written(again) == "42\n"
            assert again["session_id"] == cell["session_id"]
            assert await containers_of(second, engine) == containers
        await anyio.to_thread.run_sync(close_all, second)
    assert await containers_of(second, engine) == []


async def test_a_client_that_begins_anew_after_a_crash_goes_on_with_its_running_session(
    folder: Path, engine: DockerRuntime
) -> None:
    """Clients of the older era get a new conversation, and take over what the last one left."""
    with serve(folder) as first:
        async with first.client("legacy") as client:
            cell = await call(client, "execute_code", code="secret = 6 * 7")
            left = cell["session_id"]
            kill(first)
    with serve(folder) as second:
        async with second.client("legacy") as client:
            found = await call(client, "execute_code", code="print(secret)")
            assert written(found) == "42\n"
            assert found["session_id"] == left
            (note,) = found["notes"]
            assert left in note
            listed = (await call(client, "list_sessions"))["sessions"]
            assert [each["session_id"] for each in listed] == [left]
        await anyio.to_thread.run_sync(close_all, second)


async def test_a_cell_that_ended_while_no_controller_ran_is_found_with_all_its_outputs(
    folder: Path, engine: DockerRuntime
) -> None:
    code = "import time\nfor i in range(4):\n    print(i, flush=True)\n    time.sleep(0.5)"
    with serve(folder) as first:
        async with first.client() as client:
            cell = await call(client, "execute_code", code=code, wait=0)
            assert cell["status"] == "running"
            kill(first)
    await anyio.sleep(4)  # the time in which the cell ends is what this is about
    with serve(folder) as second:
        async with second.client() as client:
            result = await call(client, "get_execution", execution_id=cell["execution_id"], wait=30)
            assert result["status"] == "ok"
            assert written(result) == "0\n1\n2\n3\n"
        await anyio.to_thread.run_sync(close_all, second)


async def test_commands_outlive_their_controller_with_all_that_they_write(
    folder: Path, engine: DockerRuntime
) -> None:
    """One runs when the next controller comes, one has ended meanwhile, one is stopped by it."""
    steps = "for i in $(seq 20); do echo step $i; sleep 0.5; done; echo err >&2; exit 3"
    with serve(folder) as first:
        async with first.client() as client:
            long = await call(client, "run_command", command=steps, wait=1)
            quick = await call(client, "run_command", command="sleep 1; echo quick", wait=0)
            endless = await call(client, "run_command", command="echo on; sleep 600", wait=1)
            assert {each["status"] for each in (long, quick, endless)} == {"running"}
            assert "step 1" in long["stdout"]
            kill(first)
    await anyio.sleep(2)  # the time in which the quick one ends is what this is about
    with serve(folder) as second:
        async with second.client() as client:
            with anyio.fail_after(60):
                ended = await call(client, "get_command", command_id=quick["command_id"], wait=30)
                assert (ended["status"], ended["stdout"]) == ("exited", "quick\n")
                stopped = await call(client, "stop_command", command_id=endless["command_id"])
                assert (stopped["status"], stopped["stdout"]) == ("stopped", "on\n")
                result = await call(client, "get_command", command_id=long["command_id"], wait=40)
            assert (result["status"], result["exit_code"]) == ("exited", 3)
            assert result["stdout"].splitlines() == [f"step {number}" for number in range(1, 21)]
            assert (result["stderr"], result.get("truncated_bytes", 0)) == ("err\n", 0)
            kill(second)
    with serve(folder) as third:
        async with third.client() as client:
            again = await call(client, "get_command", command_id=long["command_id"])
            assert again == result
        await anyio.to_thread.run_sync(close_all, third)


async def test_a_controller_killed_while_it_opens_sessions_leaves_nothing_after_the_next_start(
    folder: Path, engine: DockerRuntime
) -> None:
    """Whatever moment of an opening the kill hits, no container without a caller remains."""
    for after_s in (0.05, 0.2, 0.4):
        with serve(folder) as killed:
            async with killed.http() as http, anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(_open, http)
                await anyio.sleep(after_s)
                kill(killed)
        with serve(folder) as following:
            async with following.http() as http:
                listed = (await http.get("/mcp/v1/sessions")).json()["sessions"]
            with anyio.fail_after(30):
                while len(await containers_of(following, engine)) > len(listed):
                    await anyio.sleep(0.2)
            await anyio.to_thread.run_sync(close_all, following)
            assert await containers_of(following, engine) == []


async def _open(http: httpx2.AsyncClient) -> None:
    """Open a session; that its controller dies meanwhile is what is tried."""
    with suppress(httpx2.TransportError):
        await http.post("/mcp/v1/sessions", json={"reuse": False})
