"""What threads, tasks and processes write after their cell, through the real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from mcp import Client

from ..support.served import Served

pytestmark = pytest.mark.anyio

WAIT_S = 60.0
THREAD = """
import threading, time
def write():
    while not go.wait(0.01): pass
    print("of the thread")
go = threading.Event()
threading.Thread(target=write).start()
print("in time")
"""
TASK = """
import asyncio
async def write():
    await asyncio.sleep(0.3)
    print("of the task")
task = asyncio.ensure_future(write())
print("in time")
"""


@pytest.fixture
async def client(clean: Served) -> AsyncIterator[Client]:
    async with clean.client() as client:
        yield client


async def run(client: Client, code: str, **more: Any) -> Any:
    with anyio.fail_after(WAIT_S):
        return await client.call_tool("execute_code", {"code": code, **more})


def words(result: Any) -> list[str]:
    return [block.text for block in result.content if block.type == "text"]


async def until_written(client: Client, execution_id: str, text: str) -> None:
    """Wait until an execution has a text, asking for it as any caller does."""
    with anyio.fail_after(WAIT_S):
        while True:
            found = await client.call_tool("get_execution", {"execution_id": execution_id})
            if text in found.structured_content["text"]:
                return
            await anyio.sleep(0.05)


async def test_what_a_thread_writes_is_told_in_the_next_result_with_whose_it_is(
    client: Client,
) -> None:
    first = (await run(client, THREAD)).structured_content
    assert first["text"] == "in time"
    second = await run(client, "go.set()\ntime.sleep(0.5)\nprint('own')")
    third = await run(client, "1")

    (late,) = second.structured_content["late"]
    assert late.endswith("\nof the thread")
    assert f"In [1], execution {first['execution_id']}]" in late
    assert second.structured_content["text"] == "own"
    assert words(second)[:2] == ["own", late]
    assert "late" not in third.structured_content
    again = await client.call_tool(
        "get_execution", {"execution_id": second.structured_content["execution_id"]}
    )
    assert again.structured_content["late"] == [late], "it is not lost when it is asked for later"
    await until_written(client, first["execution_id"], "in time\nof the thread")
    (read,) = (await client.read_resource(f"execution://{first['execution_id']}")).contents
    assert "of the thread" in json.dumps(json.loads(read.text)["outputs"])


async def test_what_a_task_writes_between_cells_is_told_by_the_next_one(client: Client) -> None:
    first = (await run(client, TASK)).structured_content
    await until_written(client, first["execution_id"], "of the task")
    second = (await run(client, "print('own')")).structured_content
    (late,) = second["late"]
    assert late.endswith("\nof the task")
    assert second["text"] == "own"
