"""What a session's kernels, terminals and commands send takes the time of nobody else.

Each attack runs against a served controller while another principal executes ``1+1`` once a
second, and its worst answer must come within a second: during the attack, after it, and after a
``kill -9`` and a restart.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from mcp import Client

from sandbox.container.labels import LABEL_OWNER
from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support.calls import written
from ..support.served import Served, close_all, sandbox, serve

WORST_S = 1.0
GROWTH_BYTES = 200_000_000
SCOPES = "session,execute"

pytestmark = [pytest.mark.anyio, pytest.mark.timed]

PRELUDE = """
import json, os, time
from IPython import get_ipython
from IPython.display import display, update_display

def publish(kind, raw):
    '''Send a message of this cell with this content, as bytes.'''
    kernel = get_ipython().kernel
    message = kernel.session.msg(kind, {}, parent=kernel.get_parent("shell"))
    parts = kernel.session.serialize(message)
    parts[-1] = raw
    kernel.iopub_socket.send_multipart(parts)
"""

COMMAS = (
    PRELUDE
    + """
publish("stream", b"," * 250_001 + b'\\\\"' * 40_000)
time.sleep(1)
print("after it")
"""
)
UPDATES = (
    PRELUDE
    + """
for _ in range(5_000):
    display({"text/plain": "x"}, raw=True, display_id="one")
for _ in range(5):
    update_display({"text/plain": ["y" * 1000] * 7_000}, raw=True, display_id="one")
print("after it")
"""
)
LISTS = (
    PRELUDE
    + """
for n in range(40):
    display({"application/json": [[]] * 200_000}, raw=True)
print("after it")
"""
)
BACKSPACES = (
    PRELUDE
    + """
import sys
until = time.monotonic() + 5
print("y" * 16_000, end="", flush=True)
while time.monotonic() < until:
    print("a\\b", end="", flush=True)
print("\\nafter it")
"""
)


class Neighbour:
    """Another principal that executes ``1+1`` once a second and keeps the time it takes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.worst_s = 0.0
        self.answers = 0
        self._is_over = anyio.Event()

    async def ask(self) -> None:
        """Execute it once."""
        began = time.monotonic()
        result = await self._client.call_tool("execute_code", {"code": "1+1"})
        self.worst_s = max(self.worst_s, time.monotonic() - began)
        self.answers += 1
        assert result.structured_content is not None, result.content
        assert result.structured_content["status"] == "ok", result.structured_content

    async def run(self) -> None:
        """Execute it until :meth:`stop`."""
        while not self._is_over.is_set():
            await self.ask()
            with anyio.move_on_after(1):
                await self._is_over.wait()

    def stop(self) -> None:
        """It has worked long enough."""
        self._is_over.set()


@contextmanager
def controller(folder: Path) -> Iterator[tuple[Served, Served]]:
    """A served controller, as its own principal and as another one meets it."""
    with serve(folder) as served:
        words = ("--principal", "neighbour", "--scopes", SCOPES, "--json")
        made = sandbox(served.state, "token", "create", *words)
        token = json.loads(made.stdout)["token"]
        yield served, Served(served.base, token, served.process, served.state, served.log)


@asynccontextmanager
async def beside(other: Served) -> AsyncIterator[Neighbour]:
    """A neighbour that works during the block."""
    async with other.client() as client:
        neighbour = Neighbour(client)
        await neighbour.ask()  # opens its session
        neighbour.worst_s = 0.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(neighbour.run)
            yield neighbour
            await neighbour.ask()  # once more, after it
            neighbour.stop()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """Where the controllers keep their state; also a test that fails leaves no container."""
    yield tmp_path
    engine = DockerRuntime.connect_engine()
    for owner in tmp_path.glob("state/controllers/*/owner"):
        for left in await engine.list({LABEL_OWNER: owner.read_text().strip()}):
            await engine.remove(left.id)
    await engine.aclose()


async def execute(client: Client, code: str, wait: float = 50) -> dict[str, Any]:
    """Execute a cell, to its end if that comes in time."""
    result = await client.call_tool("execute_code", {"code": code, "wait": wait})
    assert result.structured_content is not None, result.content
    return result.structured_content


async def finished(client: Client, cell: dict[str, Any]) -> dict[str, Any]:
    """How a cell ended."""
    with anyio.fail_after(120):
        while cell["status"] == "running":
            asked = {"execution_id": cell["execution_id"], "wait": 20}
            answer = await client.call_tool("get_execution", asked)
            assert answer.structured_content is not None, answer.content
            cell = answer.structured_content
    return cell


def worked_s(served: Served) -> float:
    """The processor time that a controller has used."""
    return sum(psutil.Process(served.process.pid).cpu_times()[:2])


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(COMMAS, id="commas and quotes"),
        pytest.param(UPDATES, id="one large update of many displays"),
        pytest.param(LISTS, id="JSON of many lists"),
        pytest.param(BACKSPACES, id="backspaces over a long line"),
    ],
)
async def test_a_cell_does_not_take_the_time_or_memory_of_others(folder: Path, attack: str) -> None:
    """Invariant 4: what one cell sends holds up no other session, nor fills the controller."""
    with controller(folder) as (served, other):
        async with served.client() as client, beside(other) as neighbour:
            await execute(client, "1+1")
            process = psutil.Process(served.process.pid)
            before = process.memory_info().rss
            result = await finished(client, await execute(client, attack))
            assert "after it" in written(result) or result.get("truncated_bytes"), result
            again = await execute(client, "print('goes on')")
            assert written(again) == "goes on\n"
            growth = process.memory_info().rss - before
        close_all(served)
        close_all(other)
    assert neighbour.answers >= 2
    assert neighbour.worst_s < WORST_S
    assert growth < GROWTH_BYTES


async def test_a_message_that_was_not_acknowledged_does_not_hold_up_the_next_controller(
    folder: Path,
) -> None:
    """Invariant 4: a message that was being read at a kill -9 is no trap for the next start."""
    attack = COMMAS.replace("time.sleep(1)", "time.sleep(6)")
    with controller(folder) as (served, other):
        first_s = worked_s(served)
        async with served.client() as client, other.client() as there:
            await execute(client, "1+1")
            await execute(there, "1+1")
            cell = await execute(client, attack, wait=0)
            await anyio.sleep(0.5)  # it is sent about now, and acknowledged after a second
            served.process.kill()
            served.process.wait(30)
    with serve(folder) as served:
        ready_s = worked_s(served)
        other = Served(served.base, other.token, served.process, served.state, served.log)
        async with beside(other) as neighbour, served.client() as client:
            result = await finished(client, {**cell, "status": "running"})
            assert result["status"] == "ok", result
            assert "after it" in written(result)
        close_all(served)
        close_all(other)
    assert ready_s < first_s + 3  # where it took 36 s
    assert neighbour.worst_s < WORST_S
