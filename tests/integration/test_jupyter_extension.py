"""The extension in a real Jupyter Server, by the real MCP client."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp import ClientSession

from ..support.calls import written
from ..support.jupyterserver import TOKEN, Installed, Running, client_of, install, running

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[ClientSession]]

AUTHORIZER = """
from jupyter_server.auth.authorizer import Authorizer

class NoExecution(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return action != "execute"
"""


@pytest.fixture(scope="module")
def server(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    with running(installed, tmp_path_factory.mktemp("server")) as found:
        yield found


def answered(result: Any) -> dict[str, Any]:
    assert not result.is_error, result.content
    return result.structured_content


async def kernel_of(server: Running) -> str:
    """Start a kernel as JupyterLab does, and return the server's id of it."""
    async with httpx.AsyncClient(params={"token": TOKEN}) as http:
        made = await http.post(f"{server.url}api/kernels", json={"name": "python3"})
    return str(made.json()["id"])


def test_it_is_listed_as_enabled_and_valid(installed: Installed) -> None:
    said = installed.jupyter("extension", "list")
    at = said.index("sandbox ")
    assert "enabled" in said[at:].splitlines()[0]
    assert "OK" in said[at:].splitlines()[2]


def test_it_is_off_until_somebody_enables_it(tmp_path: Path) -> None:
    fresh = install(tmp_path)
    said = fresh.jupyter("extension", "list")
    assert "disabled" in said[said.index("sandbox ") :].splitlines()[0]


@pytest.mark.parametrize("scheme", ["token", "Bearer"])
async def test_the_servers_token_lists_and_runs_the_tools(server: Running, scheme: str) -> None:
    async with client_of(server, Authorization=f"{scheme} {TOKEN}") as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"execute_code", "read_file", "open_terminal", "list_kernels"} <= names
        assert names.isdisjoint({"open_session", "run_command", "list_policies"})
        got = await client.call_tool("execute_code", {"code": "print('hi'); 6 * 7"})
    assert written(answered(got)).split() == ["hi", "42"]


async def test_it_says_that_it_is_no_sandbox(server: Running) -> None:
    async with client_of(server) as client:
        found = await client.initialize()
    assert "no sandbox" in (found.instructions or "")
    assert "container" not in (found.instructions or "")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "token wrong"}])
def test_without_the_token_nothing_is_served(server: Running, headers: dict[str, str]) -> None:
    for method in ("POST", "GET", "DELETE"):
        got = httpx.request(method, server.mcp_url, headers=headers)
        assert got.status_code in (401, 403)
    assert httpx.post(server.mcp_url, params={"token": "wrong"}, json={}).status_code in (401, 403)


def test_a_page_of_another_origin_gets_in_with_a_token_only(server: Running) -> None:
    """Jupyter's own rule: a cookie is not enough, and needs its XSRF token."""
    origin = {"Origin": "https://elsewhere.example"}
    with httpx.Client(headers=origin, follow_redirects=True) as browser:
        logged_in = browser.get(f"{server.url}login", params={"token": TOKEN})
        assert logged_in.status_code < 500
        assert browser.cookies
        assert browser.post(server.mcp_url, json={}).status_code in (403, 404)


async def test_a_token_in_the_address_is_as_good(server: Running) -> None:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    accept = {"Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(params={"token": TOKEN}, headers=accept) as http:
        got = await http.post(server.mcp_url, json=body)
    assert got.status_code == 200
    assert got.headers["content-type"].startswith("text/event-stream")


async def test_files_are_those_of_the_server(server: Running) -> None:
    async with client_of(server) as client:
        answered(await client.call_tool("write_file", {"path": "sub/a.txt", "content": "one"}))
        assert (server.root / "sub/a.txt").read_text() == "one"
        edit = {"path": "sub/a.txt", "old_string": "one", "new_string": "two"}
        answered(await client.call_tool("edit_file", edit))
        got = answered(await client.call_tool("read_file", {"path": "/sub/a.txt"}))
        assert got["content"] == "two"
        outside = await client.call_tool("read_file", {"path": "../../etc/passwd"})
        assert outside.is_error


async def test_a_terminal_shows_what_its_shell_does(server: Running) -> None:
    async with client_of(server) as client:
        opened = answered(await client.call_tool("open_terminal", {}))
        terminal = {"terminal_id": opened["terminal_id"]}
        typed = {**terminal, "text": "echo $((40 + 2))\n", "wait": 10}
        text = answered(await client.call_tool("write_terminal", typed))["new_text"]
        with anyio.fail_after(30):
            while "\n42" not in text.replace("\r", ""):
                more = await client.call_tool("read_terminal", {**terminal, "wait": 5})
                text += answered(more)["new_text"]
        listed = answered(await client.call_tool("list_terminals", {}))["terminals"]
        assert opened["terminal_id"] in {each["terminal_id"] for each in listed}
        answered(await client.call_tool("close_terminal", terminal))


async def test_a_kernel_of_jupyterlab_is_shared(server: Running) -> None:
    jupyter_id = await kernel_of(server)
    async with client_of(server) as client:
        kernels = answered(await client.call_tool("list_kernels", {}))["kernels"]
        own = f"k-{jupyter_id.replace('-', '')}"
        assert own in {each["kernel_id"] for each in kernels}
        asked = {"code": "x = 5\nx", "kernel_id": own}
        assert written(answered(await client.call_tool("execute_code", asked))).strip() == "5"
        answered(await client.call_tool("stop_kernel", {"kernel_id": own}))
    async with httpx.AsyncClient(params={"token": TOKEN}) as http:
        left = (await http.get(f"{server.url}api/kernels")).json()
    assert jupyter_id not in {each["id"] for each in left}


async def test_progress_and_a_picture_come_through(server: Running) -> None:
    code = (
        "import base64, time\nfrom IPython.display import Image, display\n"
        "print('begun', flush=True); time.sleep(1.5)\n"
        "display(Image(data=base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR"
        "42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='), format='png'))"
    )
    told: list[str] = []

    async def on_progress(_done: float, _total: float | None, message: str | None) -> None:
        told.append(message or "")

    async with client_of(server) as client:
        asked = {"code": code, "progress_interval": 0.5}
        got = await client.call_tool("execute_code", asked, progress_callback=on_progress)
    assert not got.is_error
    assert "image" in {block.type for block in got.content}
    assert any("begun" in message for message in told)


async def test_what_a_custom_authorizer_denies_is_refused(
    installed: Installed, tmp_path: Path
) -> None:
    (tmp_path / "noexecution.py").write_text(AUTHORIZER)
    options = "--ServerApp.authorizer_class=noexecution.NoExecution"
    with running(installed, tmp_path / "run", options, env={"PYTHONPATH": str(tmp_path)}) as found:
        async with client_of(found) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert "execute_code" not in names
            assert {"read_file", "list_kernels"} <= names
            refused = await client.call_tool("execute_code", {"code": "open('made', 'w')"})
            assert refused.is_error
            assert (await client.call_tool("write_terminal", {"terminal_id": "t-1"})).is_error
            answered(await client.call_tool("write_file", {"path": "a", "content": "1"}))
        assert not (found.root / "made").exists()
