"""What threads, tasks and processes write after their cell, through the real server."""

from __future__ import annotations

import json
import re
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


async def test_what_a_process_writes_after_its_cell_is_its_cells(client: Client) -> None:
    begin = "import subprocess\nchild = subprocess.Popen('read x; echo of the child', shell=True, "
    first = (
        await run(client, f"{begin}stdin=subprocess.PIPE)\nprint('in time')")
    ).structured_content
    assert first["text"] == "in time"
    second = (
        await run(client, "child.communicate(b'\\n')\nprint('own')\nimport time; time.sleep(0.3)")
    ).structured_content
    assert second["text"].splitlines()[-1] == "own"
    await until_written(client, first["execution_id"], "in time\nof the child")
    assert "of the child" not in second["text"]
    assert "of the child" in str(second.get("late"))


async def test_a_flood_after_the_end_is_told_within_a_few_kilobytes(client: Client) -> None:
    flood = THREAD.replace('print("of the thread")', "print('xyz ' * 50_000)\n    print('end')")
    first = (await run(client, flood)).structured_content
    second = await run(client, "go.set()\ntime.sleep(1)\nprint('own')")
    (late,) = second.structured_content["late"]
    assert len(late) < 5000
    assert late.splitlines()[-2] == "end"
    assert f"bytes more of it are in execution://{first['execution_id']}]" in late
    assert second.structured_content["text"] == "own"


async def test_what_comes_late_reaches_the_cell_of_its_notebook(client: Client) -> None:
    await client.call_tool(
        "use_notebook", {"notebook_name": "late", "notebook_path": "late.ipynb", "mode": "create"}
    )
    for index, source in enumerate((THREAD, "go.set()\ntime.sleep(0.5)\nprint('own')")):
        given = {"cell_index": index, "cell_source": source}
        with anyio.fail_after(WAIT_S):
            ran = await client.call_tool("insert_execute_code_cell", given)
        assert not ran.is_error, words(ran)
    assert "of the thread" in str(ran.structured_content["late"])
    with anyio.fail_after(WAIT_S):
        while True:
            read = await client.call_tool("read_cell", {"cell_index": 0})
            if "of the thread" in str(read.structured_content):
                break
            await anyio.sleep(0.05)
    own = await client.call_tool("read_cell", {"cell_index": 1})
    assert "of the thread" not in str(own.structured_content)


@pytest.mark.parametrize(
    ("kernel", "code"),
    [
        ("python3", "!sleep 601 & sleep 602 &"),
        ("python3", "%%bash\nsleep 601 &\nsleep 602 &"),
        (
            "python3",
            "import subprocess; ps = [subprocess.Popen(['sleep', n]) for n in ('601', '602')]",
        ),
        ("bash", "sleep 601 & sleep 602 &"),
    ],
    ids=["of a line of the shell", "of a cell of the shell", "of Python", "of bash"],
)
async def test_a_cell_tells_what_it_leaves_running_and_later_ones_do_not(
    client: Client, kernel: str, code: str
) -> None:
    started = await client.call_tool("start_kernel", {"kernel_name": kernel})
    kernel_id = started.structured_content["kernel_id"]
    await run(client, "echo there" if kernel == "bash" else "!echo there", kernel_id=kernel_id)
    left = await run(client, code, kernel_id=kernel_id)
    (note,) = left.structured_content["notes"]
    # One that was just made may still have the name of who made it.
    assert note.startswith("goes on in the background: ")
    assert len(re.findall(r"pid \d+", note)) == 2
    assert f"[{note}]\n[ok after" in words(left)[-1]
    pids = re.findall(r"pid (\d+)", note)
    more = await run(client, "true" if kernel == "bash" else "!true", kernel_id=kernel_id)
    assert "background" not in words(more)[-1]
    ended = await client.call_tool("run_command", {"command": f"kill {' '.join(pids)}"})
    assert ended.structured_content["exit_code"] == 0
