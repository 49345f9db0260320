"""The way out of real containers, through the served controller and over MCP."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from ..support.served import Served

pytestmark = pytest.mark.anyio

PACKAGE = "iniconfig"
FILE_BYTES = 32 * 1024 * 1024

Connect = Callable[..., AbstractAsyncContextManager[Client]]


async def command(client: Client, session: str, text: str) -> dict[str, Any]:
    """Run a command and return its structured result."""
    result = await client.call_tool(
        "run_command", {"command": text, "session_id": session, "timeout": 120}
    )
    assert result.structured_content is not None, result.content
    return result.structured_content


async def opened(client: Client, policy: str) -> str:
    """A new session of a policy."""
    result = await client.call_tool("open_session", {"policy": policy, "reuse": False})
    assert result.structured_content is not None, result.content
    return result.structured_content["session_id"]


async def test_pip_installs_a_real_package_under_package_index(connect: Connect) -> None:
    async with connect() as client:
        session = await opened(client, "package-index")
        code = (
            f"%pip install --quiet {PACKAGE}\nimport os, {PACKAGE}\n"
            f"{PACKAGE}.__name__, os.environ['PIP_INDEX_URL']"
        )
        result = await client.call_tool(
            "execute_code", {"code": code, "session_id": session, "wait": 120}
        )
        cell = result.structured_content
        assert cell is not None
        assert cell["status"] == "ok", cell
        assert "denials" not in cell
        assert PACKAGE in cell["text"]
        assert "http://packages.sandbox.internal/0/" in cell["text"]
        info = await client.call_tool("get_session", {"session_id": session})
        assert info.structured_content is not None
        network = info.structured_content["network"]
    assert network["mode"] == "gateway"
    assert network["connections"] >= 2
    assert network["received_bytes"] > 1000


async def test_what_is_missing_is_answered_with_what_can_be_done(connect: Connect) -> None:
    async with connect() as client:
        for policy, advice in (("offline", "policy='datascience'"), ("package-index", "%pip")):
            session = await opened(client, policy)
            cell = await client.call_tool(
                "execute_code", {"code": "import pandas", "session_id": session}
            )
            assert cell.structured_content is not None
            assert advice in cell.structured_content["reason"]
            assert advice in "".join(b.text for b in cell.content if b.type == "text")
            ran = await command(client, session, "figlet x")
            assert "`image.apt`" in ran["reason"]


async def test_under_offline_the_same_ends_with_the_rule_that_denied_it(connect: Connect) -> None:
    async with connect() as client:
        session = await opened(client, "offline")
        result = await client.call_tool(
            "execute_code",
            {"code": f"%pip install --retries 0 {PACKAGE}", "session_id": session, "wait": 120},
        )
        cell = result.structured_content
        assert cell is not None
        (denial,) = cell["denials"]
        assert ":443 denied by network: none" in denial
        said = "".join(block.text for block in result.content if block.type == "text")
        assert "denied by network: none" in said


async def test_what_the_index_does_not_need_stays_shut(connect: Connect) -> None:
    async with connect() as client:
        session = await opened(client, "package-index")
        found = await command(client, session, "curl -sS -m 20 https://example.com/")
        assert found["exit_code"] != 0
        assert found["denials"][0].startswith("network: example.com:443 denied by default: ")


@pytest.fixture(scope="module")
def model_server() -> Iterator[int]:
    """A service of the host on its loopback; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = bytes(FILE_BYTES) if self.path == "/big" else b"the model says hello"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made.server_address[1]
        made.shutdown()


async def test_a_named_address_opens_one_service_of_the_host_to_every_client(
    run_server: Callable[..., AbstractContextManager[Served]], model_server: int, tmp_path: Path
) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "model.yaml").write_text(
        "version: 1\nnetwork:\n  allow:\n"
        f"    - {{address: model-server, ports: [{model_server}], http: true}}\n"
    )
    url = f"http://model-server:{model_server}"
    env = {"SANDBOX_POLICIES": str(policies), "SANDBOX_ADDRESSES": "model-server=127.0.0.1"}
    with run_server(tmp_path, **env) as served:
        async with served.client() as client:
            session = await opened(client, "model")
            python = (
                f"import urllib.request as u; print(u.urlopen('{url}/').read().decode(), "
                f"len(u.urlopen('{url}/big').read()))"
            )
            for text, words in (
                (f"curl -sS {url}/", "the model says hello"),
                (f"curl -sS --proxytunnel {url}/", "the model says hello"),
                (f"curl -sS --socks5-hostname 127.0.0.1:3128 {url}/", "the model says hello"),
                (f"curl -sS {url}/big | wc -c", str(FILE_BYTES)),
                (f"curl -sS --proxytunnel {url}/big | wc -c", str(FILE_BYTES)),
                (f'python3 -c "{python}"', f"the model says hello {FILE_BYTES}"),
            ):
                found = await command(client, session, text)
                assert found["stdout"].strip() == words, (text, found)
                assert "denials" not in found
            shut = await command(client, session, f"curl -sS http://127.0.0.1:{model_server}/ 2>&1")
            assert shut["exit_code"] != 0  # loopback inside is the sandbox's own
            down = await command(client, session, "curl -sS -i http://model-server:1/")
            assert "denied by default: " in down["denials"][0]
            await client.call_tool("close_session", {"session_id": session})


async def test_a_destination_that_is_down_says_so(
    run_server: Callable[..., AbstractContextManager[Served]], tmp_path: Path
) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "down.yaml").write_text(
        "version: 1\nnetwork:\n  allow:\n"
        "    - {address: gone, ports: [9], http: true}\n"
        "    - {domain: does-not-exist.invalid-name.example, http: true}\n"
    )
    env = {"SANDBOX_POLICIES": str(policies), "SANDBOX_ADDRESSES": "gone=127.0.0.1"}
    with run_server(tmp_path, **env) as served:
        async with served.client() as client:
            session = await opened(client, "down")
            refused = await command(client, session, "curl -sS http://gone:9/")
            assert "connection refused" in refused["stdout"]
            unknown = await command(
                client, session, "curl -sS http://does-not-exist.invalid-name.example/"
            )
            assert "does not resolve" in unknown["stdout"]
            assert all("not reached" in each for each in refused["denials"] + unknown["denials"])
            await client.call_tool("close_session", {"session_id": session})
