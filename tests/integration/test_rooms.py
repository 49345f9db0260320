"""People and agents in one notebook: real clients of Jupyter's collaboration, a real container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from ..support import nbmodelrun
from ..support.environments import python_with
from ..support.served import Served

pytestmark = pytest.mark.anyio

NOTEBOOK = "shared.ipynb"


class Somebody:
    """A process of jupyter_nbmodel_client."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process
        self._unread = b""

    async def until(self, condition: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Wait until it sees that of the cells."""
        seen: Any = None
        try:
            with anyio.fail_after(30):
                while True:
                    seen = json.loads(await self._line())
                    if seen["synced"] and condition(seen["cells"]):
                        return
        except TimeoutError:
            raise AssertionError(f"never, only {seen}") from None

    async def edit(self, cell: int, source: str) -> None:
        """Have it change a cell."""
        assert self._process.stdin is not None
        told = json.dumps({"cell": cell, "source": source})
        await self._process.stdin.send(told.encode() + b"\n")

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            self._unread += await self._process.stdout.receive()
        line, self._unread = self._unread.split(b"\n", 1)
        return line


@asynccontextmanager
async def somebody(base: str, session_id: str, token: str) -> AsyncIterator[Somebody]:
    python = await anyio.to_thread.run_sync(python_with, "jupyterclients")
    words = [str(python), "-I", nbmodelrun.__file__, f"{base}/jupyter/{session_id}"]
    process = await anyio.open_process([*words, NOTEBOOK, token], stderr=subprocess.DEVNULL)
    async with process:
        try:
            yield Somebody(process)
        finally:
            if process.returncode is None:
                process.kill()


def text_of(cell: dict[str, Any]) -> str:
    outputs: list[dict[str, Any]] = cell.get("outputs") or []
    return "".join(str(each.get("text", "")) for each in outputs)


async def test_a_person_with_the_nbmodel_client_and_an_agent_edit_one_notebook(
    clean: Served,
) -> None:
    async with clean.client() as agent:
        opened = await agent.call_tool("open_session", {})
        session_id = (opened.structured_content or {})["session_id"]
        await agent.call_tool(
            "use_notebook",
            {"notebook_name": "n", "notebook_path": NOTEBOOK, "mode": "create"},
        )
        async with somebody(clean.base, session_id, clean.token) as person:
            await person.until(lambda cells: True)
            ran = await agent.call_tool(
                "insert_execute_code_cell", {"cell_index": 0, "cell_source": "print(6 * 7)"}
            )
            assert not ran.is_error, ran
            await person.until(
                lambda cells: cells[0]["source"] == "print(6 * 7)" and "42" in text_of(cells[0])
            )
            await person.edit(0, "print('typed by a person')")
            with anyio.fail_after(10):
                while True:
                    read = await agent.call_tool("read_cell", {"cell_index": 0})
                    if "typed by a person" in str(read.content):
                        break
                    await anyio.sleep(0.05)
            ran = await agent.call_tool("execute_cell", {"cell_index": 0})
            await person.until(lambda cells: "typed by a person" in text_of(cells[0]))
