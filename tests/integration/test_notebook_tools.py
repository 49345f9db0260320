"""A client written for jupyter-mcp-server 2.2 works here with another URL and token and nothing
else changed. And what that server cannot do: a kernel that dies, many callers, a restart."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import nbformat
import pytest
from mcp import Client
from mcp_types import ImageContent, TextContent

from ..support.served import Served
from .test_mcp_http import PLOT

pytestmark = pytest.mark.anyio


class NotebookClient:
    """Calls the notebook tools with the names and arguments that they have there, and reads what
    they answer as its own tests do: texts and pictures, in order."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def _call(self, tool: str, **arguments: Any) -> list[str | ImageContent]:
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        return [
            block.text if isinstance(block, TextContent) else block
            for block in result.content
            if isinstance(block, TextContent | ImageContent)
        ]

    async def fails(self, tool: str, **arguments: Any) -> str:
        """What a call that must fail says."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error
        return "\n".join(block.text for block in result.content if block.type == "text")

    async def use_notebook(self, name: str, path: str, mode: str = "connect") -> str:
        told = await self._call(
            "use_notebook", notebook_name=name, notebook_path=path, mode=mode, kernel_id=None
        )
        return str(told[0])

    async def list_notebooks(self) -> str:
        return str((await self._call("list_notebooks"))[0])

    async def read_notebook(self, name: str, **more: Any) -> str:
        return str((await self._call("read_notebook", notebook_name=name, **more))[0])

    async def restart_notebook(self, name: str) -> str:
        return str((await self._call("restart_notebook", notebook_name=name))[0])

    async def unuse_notebook(self, name: str) -> str:
        return str((await self._call("unuse_notebook", notebook_name=name))[0])

    async def insert_cell(self, index: int, kind: str, source: str) -> str:
        told = await self._call("insert_cell", cell_index=index, cell_type=kind, cell_source=source)
        return str(told[0])

    async def insert_execute_code_cell(
        self, index: int, source: str, timeout: int = 90
    ) -> list[str | ImageContent]:
        return await self._call(
            "insert_execute_code_cell", cell_index=index, cell_source=source, timeout=timeout
        )

    async def execute_cell(self, index: int, **more: Any) -> list[str | ImageContent]:
        return await self._call("execute_cell", cell_index=index, **more)

    async def overwrite_cell_source(self, index: int, source: str) -> str:
        told = await self._call("overwrite_cell_source", cell_index=index, cell_source=source)
        return str(told[0])

    async def edit_cell_source(self, index: int, old: str, new: str) -> str:
        told = await self._call(
            "edit_cell_source", cell_index=index, old_string=old, new_string=new, replace_all=False
        )
        return str(told[0])

    async def move_cell(self, source: int, target: int) -> str:
        return str((await self._call("move_cell", source_index=source, target_index=target))[0])

    async def read_cell(self, index: int) -> list[str | ImageContent]:
        return await self._call("read_cell", cell_index=index, include_outputs=True)

    async def delete_cell(self, indices: list[int]) -> str:
        told = await self._call("delete_cell", cell_indices=indices, include_source=True)
        return str(told[0])

    async def clear_cell_output(self, index: int) -> str:
        return str((await self._call("clear_cell_output", cell_index=index))[0])

    async def execute_code(self, code: str) -> list[str | ImageContent]:
        return await self._call("execute_code", code=code, timeout=60, kernel_id=None)


@pytest.fixture
def notebooks(connect: Any) -> Callable[..., Any]:
    """Make such clients of the module's controller."""

    @asynccontextmanager
    async def made(mode: str = "legacy", **named: str) -> AsyncIterator[NotebookClient]:
        async with connect(mode, **named) as client:
            yield NotebookClient(client)

    return made


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_its_workflow_runs_unchanged(notebooks: Any, mode: str) -> None:
    async with notebooks(mode) as client:
        tools = {tool.name for tool in (await client.client.list_tools()).tools}
        assert tools >= {
            *("use_notebook", "list_notebooks", "restart_notebook", "unuse_notebook"),
            *("read_notebook", "insert_cell", "overwrite_cell_source", "edit_cell_source"),
            *("execute_cell", "insert_execute_code_cell", "read_cell", "delete_cell"),
            *("clear_cell_output", "move_cell", "execute_code", "list_files", "list_kernels"),
        }
        await client.use_notebook("work", "work.ipynb", "create")
        assert "work.ipynb" in await client.list_notebooks()

        # create, insert, edit, move
        assert "markdown" in await client.insert_cell(-1, "markdown", "# Hello **World** !")
        (text, *_) = await client.insert_execute_code_cell(1, "1 + 1")
        assert int(str(text)) == 2
        diff = await client.overwrite_cell_source(1, "value = (1 + 1) * 2\nvalue")
        assert "-1 + 1" in diff
        assert "+value = (1 + 1) * 2" in diff
        assert "+value = (1 + 1) * 21" in await client.edit_cell_source(1, "* 2", "* 21")
        assert int(str((await client.execute_cell(1, timeout=30, stream=True))[0])) == 42
        await client.insert_execute_code_cell(-1, PLOT)
        assert "of 3 cells" in await client.move_cell(2, 0)

        # a picture, when it is shown and when it is read
        ran = await client.execute_cell(0, timeout=0, progress_interval=5)
        (shown,) = [block for block in ran if isinstance(block, ImageContent)]
        assert base64.b64decode(shown.data).startswith(b"\x89PNG")
        read = await client.read_cell(0)
        assert [b.data for b in read if isinstance(b, ImageContent)] == [shown.data]
        heading, source, *_ = read
        assert "type: code" in str(heading)
        assert source == PLOT

        # read, in both forms
        brief = await client.read_notebook("work", response_format="brief", limit=20)
        assert "value = (1 + 1) * 21" in brief
        assert "# Hello **World** !" in brief
        detailed = await client.read_notebook("work", response_format="detailed", start_index=2)
        assert "42" in detailed
        assert "Hello" not in detailed

        # code outside of the notebook sees its variables, until a restart
        assert (await client.execute_code("value"))[0] == "42"
        await client.restart_notebook("work")
        assert "NameError" in await client.fails("execute_code", code="value")
        await client.clear_cell_output(2)
        assert len(await client.read_cell(2)) == 2

        # cite, delete, and go on with another one
        given = {"prompt": "Explain.", "cell_indices": "0-1,2", "notebook_name": "work"}
        cited = await client.client.get_prompt("jupyter_cite", given)
        assert "Hello **World**" in cited.messages[0].content.text
        assert cited.messages[0].content.text.endswith("Explain.")
        assert "-# Hello **World** !" in await client.delete_cell([0, 1])
        await client.use_notebook("other", "other.ipynb", "create")
        await client.insert_cell(0, "raw", "x")
        await client.unuse_notebook("other")
        assert (await client.read_cell(0))[1] == "value = (1 + 1) * 21\nvalue"
        await client.unuse_notebook("work")
        assert "use_notebook" in await client.fails("read_cell", cell_index=0)


@pytest.mark.parametrize("index", [99])
async def test_each_tool_that_takes_an_index_refuses_one_that_is_not_there(
    notebooks: Any, index: int
) -> None:
    async with notebooks() as client:
        await client.use_notebook("n", "n.ipynb", "create")
        await client.insert_cell(0, "code", "1")
        for tool, given in (
            ("read_cell", {"cell_index": index}),
            ("insert_cell", {"cell_index": index, "cell_type": "raw", "cell_source": "x"}),
            ("insert_execute_code_cell", {"cell_index": index, "cell_source": "1"}),
            ("overwrite_cell_source", {"cell_index": index, "cell_source": "1"}),
            ("execute_cell", {"cell_index": index}),
            ("delete_cell", {"cell_indices": [index]}),
            ("clear_cell_output", {"cell_index": index}),
            ("move_cell", {"source_index": 0, "target_index": index}),
        ):
            assert "0" in await client.fails(tool, **given), tool
        assert "1 cells" in await client.read_notebook("n")


async def test_what_is_written_is_a_notebook_that_nbformat_reads(notebooks: Any) -> None:
    async with notebooks() as client:
        await client.use_notebook("n", "folder/n.ipynb", "create")
        await client.insert_execute_code_cell(-1, PLOT)
        await client.insert_execute_code_cell(-1, "print('text')\n40 + 2")
        await client.unuse_notebook("n")
        read = await client.client.call_tool("read_file", {"path": "folder/n.ipynb"})
        notebook = nbformat.reads(read.structured_content["content"], as_version=4)
        nbformat.validate(notebook)
        assert [cell.execution_count for cell in notebook.cells] == [1, 2]
        assert notebook.cells[0].outputs[0].data["image/png"]
        assert [output.output_type for output in notebook.cells[1].outputs] == [
            "stream",
            "execute_result",
        ]


async def test_agents_work_in_one_notebook_and_in_several_at_once(notebooks: Any) -> None:
    async with notebooks(key="first") as one, notebooks(key="second") as other:
        await one.use_notebook("shared", "shared.ipynb", "create")
        listed = await one.client.call_tool("list_notebooks", {})
        given = {"session_id": listed.structured_content["session_id"]}
        named = {"notebook_name": "mine", "notebook_path": "shared.ipynb"}
        assert not (await other.client.call_tool("use_notebook", {**named, **given})).is_error
        async with anyio.create_task_group() as edits:
            for number in range(5):
                edits.start_soon(one.insert_cell, -1, "raw", f"one {number}")
                edits.start_soon(other.insert_cell, -1, "raw", f"other {number}")
        read = await one.read_notebook("shared", limit=0)
        assert read == (await other.read_notebook("mine", limit=0)).replace("'mine'", "'shared'")
        for number in range(5):
            assert f"one {number}" in read
            assert f"other {number}" in read
        await other.use_notebook("own", "own.ipynb", "create")
        assert "one 0" in await one.read_notebook("shared")
        assert "'shared'" in (await one.list_notebooks())
        assert "use_notebook" in await other.fails("read_notebook", notebook_name="shared")


async def test_a_kernel_that_dies_in_the_middle_of_a_run_is_told(notebooks: Any) -> None:
    async with notebooks() as client:
        await client.use_notebook("n", "n.ipynb", "create")
        for source in ("x = 1", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "x"):
            await client.insert_cell(-1, "code", source)
        heard: list[str] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append(message or "")

        run = {"progress_interval": 0.1, "wait": 60}
        result = await client.client.call_tool("run_notebook", run, progress_callback=hear)
        told = result.structured_content
        assert result.is_error
        assert (told["status"], told["cell_index"], told["state"]) == ("died", 1, "lost")
        assert "2 of 3 cells ran" in told["notes"]
        assert "execution count" not in str((await client.read_cell(2))[0])
        assert "DeadKernelError" in str((await client.read_cell(1))[-1])
        assert "restart_notebook" in await client.fails("execute_cell", cell_index=0)
        await client.restart_notebook("n")
        await client.delete_cell([1])
        result = await client.client.call_tool("run_notebook", {"wait": 60})
        assert result.structured_content["text"] == "1"


async def test_after_a_controllers_crash_the_notebook_is_there_and_a_name_is_given_again(
    run_server: Callable[..., AbstractContextManager[Served]], tmp_path: Path
) -> None:
    with run_server(tmp_path) as served:
        async with served.client(key="k") as client:
            first = NotebookClient(client)
            await first.use_notebook("n", "n.ipynb", "create")
            await first.insert_execute_code_cell(0, "x = 41\nx + 1")
            await first.insert_cell(1, "raw", "typed just now")
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait()
    with run_server(tmp_path) as served:
        async with served.client(key="k") as client:
            again = NotebookClient(client)
            lost = await again.fails("read_notebook", notebook_name="n")
            assert "use_notebook(" in lost
            assert "typed just now" in await again.use_notebook("n", "n.ipynb")
            assert (await again.execute_code("x"))[0] == "41"
            read = json.loads(
                (await client.read_resource("notebook://n")).contents[0].text  # type: ignore[union-attr]
            )
            sources = ["".join(cell["source"]) for cell in read["cells"]]
            assert sources == ["x = 41\nx + 1", "typed just now"]
            await client.call_tool("close_session", {})
