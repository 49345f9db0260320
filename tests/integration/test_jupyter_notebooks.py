"""Notebooks of a Jupyter Server by MCP: in the rooms of jupyter-collaboration, or in its files."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from mcp import ClientSession

from ..support.calls import written
from ..support.jupyterserver import TOKEN, Installed, Running, client_of, running
from ..support.roompeer import in_room

pytestmark = pytest.mark.anyio

NO_ROOMS = "--YDocExtension.disable_rtc=True"
AT_ONCE = ("--YDocExtension.document_cleanup_delay=0.1", "--YDocExtension.document_save_delay=0.1")


@pytest.fixture(scope="module", params=["rooms", "files"])
def server(
    request: pytest.FixtureRequest,
    installed: Installed,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Running]:
    options = (NO_ROOMS,) if request.param == "files" else AT_ONCE
    with running(installed, tmp_path_factory.mktemp("server"), *options) as found:
        yield found


@pytest.fixture(scope="module")
def with_rooms(
    installed: Installed, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Running]:
    with running(installed, tmp_path_factory.mktemp("rooms"), *AT_ONCE) as found:
        yield found


class Agent:
    """An MCP client that wants each call to succeed."""

    def __init__(self, client: ClientSession) -> None:
        self.client = client

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        assert result.structured_content is not None
        return result.structured_content


@asynccontextmanager
async def agent_of(server: Running) -> AsyncGenerator[Agent]:
    async with client_of(server) as client:
        yield Agent(client)


async def test_the_notebook_workflow_of_jupyter_mcp_server(server: Running) -> None:
    async with agent_of(server) as call:
        await call("use_notebook", notebook_name="n", notebook_path="sub/n.ipynb", mode="create")
        begun = (await call("read_notebook")).get("total", 0)
        await call("insert_cell", cell_index=-1, cell_type="markdown", cell_source="# Title")
        run = await call("insert_execute_code_cell", cell_index=-1, cell_source="x = 6\nx * 7")
        assert written(run).strip() == "42"
        cell_id = run["cell_id"]
        await call("edit_cell_source", cell_id=cell_id, old_string="x = 6", new_string="x = 7")
        await call("move_cell", source_cell_id=cell_id, target_index=0)
        assert written(await call("execute_cell", cell_id=cell_id)).strip() == "49"
        (cell,) = (await call("read_cell", cell_id=cell_id))["cells"]
        assert (cell["index"], cell["source"], cell["outputs"]) == (0, "x = 7\nx * 7", ["49"])
        assert (await call("run_notebook"))["status"] == "ok"
        await call("restart_notebook", notebook_name="n")
        gone = await call.client.call_tool("execute_code", {"code": "x"})
        assert gone.is_error
        await call("clear_cell_output", cell_id=cell_id)
        await call("delete_cell", cell_ids_to_delete=[cell_id])
        assert (await call("read_notebook"))["total"] == begun + 1
        await call("unuse_notebook", notebook_name="n")
    saved = json.loads((server.root / "sub/n.ipynb").read_text())
    assert "# Title" in ["".join(cell["source"]) for cell in saved["cells"]]


async def test_its_cells_run_in_the_kernel_that_jupyterlab_has_for_it(server: Running) -> None:
    async with agent_of(server) as call, httpx.AsyncClient(params={"token": TOKEN}) as http:
        await call("use_notebook", notebook_name="k", notebook_path="k.ipynb", mode="create")
        wanted = {"path": "k.ipynb", "type": "notebook", "name": "k.ipynb"}
        made = await http.post(
            f"{server.url}api/sessions", json={**wanted, "kernel": {"name": "python3"}}
        )
        own = "k-" + made.json()["kernel"]["id"].replace("-", "")
        run = await call("insert_execute_code_cell", cell_index=-1, cell_source="mine = 1")
        assert run["kernel_id"] == own
        there = (await http.get(f"{server.url}api/sessions")).json()
        assert [each["path"] for each in there].count("k.ipynb") == 1
        await call("unuse_notebook", notebook_name="k")


async def test_a_notebook_that_is_not_there_is_not_made_up(server: Running) -> None:
    async with agent_of(server) as call:
        for path in ("none.ipynb", "../out.ipynb", ".hidden/n.ipynb", "text.txt"):
            arguments = {"notebook_name": "x", "notebook_path": path}
            assert (await call.client.call_tool("use_notebook", arguments)).is_error
        (server.root / "broken.ipynb").write_text("{")
        arguments = {"notebook_name": "x", "notebook_path": "broken.ipynb"}
        assert (await call.client.call_tool("use_notebook", arguments)).is_error
    assert (server.root / "broken.ipynb").read_text() == "{"
    assert not (server.root / "none.ipynb").exists()


async def test_an_edit_reaches_the_room_and_a_peers_edit_is_read_back(with_rooms: Running) -> None:
    async with agent_of(with_rooms) as call:
        await call("use_notebook", notebook_name="r", notebook_path="r.ipynb", mode="create")
        async with in_room(with_rooms.url, TOKEN, "r.ipynb") as peer:
            await call("insert_cell", cell_index=0, cell_type="code", cell_source="print('live')")
            await peer.until(lambda: "print('live')" in peer.sources)
            run = await call("execute_cell", cell_index=0)
            await peer.until(lambda: bool(peer.cell(0)["outputs"]))
            assert "".join(peer.cell(0)["outputs"][0]["text"]) == "live\n"
            assert run["status"] == "ok"
            source = peer.notebook.ycells[0]["source"]
            source += "  # by a person"
            with anyio.fail_after(20):
                while True:
                    (cell,) = (await call("read_cell", cell_index=0))["cells"]
                    if cell["source"] == "print('live')  # by a person":
                        break
            assert peer.awareness > 0


async def test_launch_puts_a_notebooks_kernel_into_a_sandbox(
    installed: Installed, with_rooms: Running
) -> None:
    async with agent_of(with_rooms) as call, httpx.AsyncClient(params={"token": TOKEN}) as http:
        await call("use_notebook", notebook_name="s", notebook_path="s.ipynb", mode="create")
        refused = await call.client.call_tool("launch_sandbox", {"policy": "offline"})
        assert refused.is_error
        assert "kernelspec install" in str(refused.content)
        installed.sandbox("kernelspec", "install", "--policy", "offline")
        here = await call(
            "execute_code", code=f"import os; os.path.exists({str(with_rooms.root)!r})"
        )
        assert written(here).strip() == "True"
        launched = await call("launch_sandbox", policy="offline")
        assert launched["policy"] == "offline"
        run = await call(
            "insert_execute_code_cell",
            cell_index=0,
            cell_source=(
                f"import os, socket\nprint(os.path.exists({str(with_rooms.root)!r}), os.getcwd())\n"
                "try: socket.create_connection(('1.1.1.1', 53), 3)\n"
                "except OSError as exc: print(type(exc).__name__)"
            ),
        )
        assert run["kernel_id"] == launched["kernel_id"]
        assert written(run).split()[:2] == ["False", "/workspace"]
        assert len(written(run).split()) == 3
        (found,) = [
            each
            for each in (await http.get(f"{with_rooms.url}api/sessions")).json()
            if each["path"] == "s.ipynb"
        ]
        assert found["kernel"]["name"] == launched["kernel_name"]
        died = await call.client.call_tool(
            "execute_code",
            {"code": "import os; os.kill(os.getpid(), 9)", "kernel_id": launched["kernel_id"]},
        )
        assert died.is_error
        assert died.structured_content["status"] == "died"
        await call("stop_kernel", kernel_id=launched["kernel_id"])


async def test_nothing_is_lost_when_the_last_person_leaves_the_room(with_rooms: Running) -> None:
    """The room's own rule lets it go then: an agent's notebook would be nobody's."""
    async with agent_of(with_rooms) as call:
        await call("use_notebook", notebook_name="l", notebook_path="l.ipynb", mode="create")
        async with in_room(with_rooms.url, TOKEN, "l.ipynb"):
            await call("insert_cell", cell_index=0, cell_type="code", cell_source="first = 1")
        await anyio.sleep(0.5)  # five times as long as the room waits before it is cleaned up
        slow = "import time\nfor n in range(3): time.sleep(0.2); print(n)"
        run = await call("insert_execute_code_cell", cell_index=1, cell_source=slow)
        assert run["status"] == "ok"
        async with in_room(with_rooms.url, TOKEN, "l.ipynb") as peer:
            await peer.until(lambda: peer.sources[:2] == ["first = 1", slow])
            assert "".join(peer.cell(1)["outputs"][0]["text"]) == "0\n1\n2\n"
        await call("unuse_notebook", notebook_name="l")
    saved = json.loads((with_rooms.root / "l.ipynb").read_text())
    assert "".join(saved["cells"][1]["outputs"][0]["text"]) == "0\n1\n2\n"
