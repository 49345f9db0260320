"""Attacks on the controller's front: who may speak, what may be said, and how much of it.

A real server on a loopback port, in front of the same manager as the other attacks. Every test ends
with the server still serving.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import docker
import httpx
import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult

from sandbox.config import Settings
from sandbox.container.labels import LABEL_OWNER
from sandbox.server.application import make_app
from sandbox.server.auth import security_settings
from sandbox.server.desk import Desk
from sandbox.server.grants import LOCAL
from sandbox.server.localtoken import LocalToken, read_token, server_token
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery-staple-token"
PAGE = "https://app.example"
MIB = 1024 * 1024


class Front:
    """The server under attack.

    Args:
        port: Where it listens on loopback.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def http(self, **headers: str) -> httpx.AsyncClient:
        """An HTTP client without a token, unless one of the headers is."""
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)

    def authorized(self) -> httpx.AsyncClient:
        """An HTTP client with the token."""
        return self.http(authorization=f"Bearer {TOKEN}")

    @asynccontextmanager
    async def mcp(self) -> AsyncIterator[Client]:
        """The official client, with the token."""
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=60))
            transport = streamable_http_client(f"{self.url}/mcp/v1", http_client=http)
            yield await stack.enter_async_context(Client(transport))

    async def raw(self, request: bytes) -> bytes:
        """Send bytes as they are; the beginning of what comes back within seconds."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            with anyio.move_on_after(10):
                return await reader.read(4096)
            return b""
        finally:
            writer.close()

    async def still_serves(self) -> bool:
        """Whether a well-behaved client gets its answer."""
        async with self.authorized() as client:
            return (await client.get("/mcp/v1/sessions")).status_code == 200


@pytest.fixture(scope="module")
async def front(
    manager: SessionManager, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Front]:
    """The server, on a free port."""
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("front"),
        token=TOKEN,  # type: ignore[arg-type]
        allowed_origins=(PAGE, "http://127.0.0.1:*"),
    )
    desk = Desk(manager)
    app = make_app(
        desk,
        verifier=LocalToken(TOKEN),
        security=security_settings(settings),
        check=manager.runtime.engine,
        origins=settings.allowed_origins,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, server_header=False, ws="none")
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            with anyio.fail_after(20):
                while not server.started:  # it has no event; a bounded poll
                    await anyio.sleep(0.01)
            yield Front(listener.getsockname()[1])
            desk.stop()
            server.should_exit = True


@pytest.fixture(autouse=True)
async def serving_afterwards(front: Front) -> AsyncIterator[None]:
    """No attack of this module may stop the server."""
    yield
    assert await front.still_serves()


def refused(result: CallToolResult) -> str:
    """The text of a call that must have failed."""
    assert result.is_error, result
    return " ".join(getattr(block, "text", "") for block in result.content)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer wrong",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}, Bearer x",
        "Bearer " + "A" * 20_000,
        "Bearer \xff\xfe",
    ],
)
async def test_without_the_token_nothing_is_served(front: Front, authorization: str) -> None:
    """Invariant 6: no or a wrong token is refused on every method, before anything is read."""
    headers = {"authorization": authorization.encode("latin-1")} if authorization else {}
    async with front.http() as client:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
            for path in ("/mcp", "/mcp/", "/mcp/v1", "/mcp/v1/", "/mcp/v1/sessions/s-x/files/a"):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code in (400, 401, 431), (method, path)
    async with front.http(authorization=f"bearer {TOKEN}") as client:
        assert (await client.get("/mcp/v1/sessions")).status_code == 200, "the right one is served"


@pytest.mark.parametrize(
    "path",
    [
        "/mcp%0A",
        "/mcp%2F",
        "/mcp;x",
        "/mcp/v1%0A",
        "/mcp/v1%0a%0d",
        "/mcp/v1%00",
        "//mcp/v1",
        "/mcp//v1",
        "/./mcp/v1",
        "/x/../mcp/v1",
        "/mcp%2Fv1",
        "/MCP/V1",
        "/mcp/v1;x",
        "/mcp/v1%20",
        "/mcp/v1/sessions%0A",
        "/mcp/v1?token=" + TOKEN,
        "http://127.0.0.1/mcp/v1",
    ],
)
async def test_no_spelling_of_a_path_gets_around_the_token(front: Front, path: str) -> None:
    """Invariant 6: what the router takes for a guarded path, the gate does too."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
    for method in ("POST", "GET", "DELETE"):
        answer = await front.raw(
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{front.port}\r\nConnection: close\r\n"
            "Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n"
            f"MCP-Protocol-Version: 2025-06-18\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        status = int(answer.split(b" ", 2)[1])
        assert status in (400, 401, 404), (method, path, answer[:200])
        assert b"execute_code" not in answer


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("host", "169.254.169.254"),
        ("host", "localhost@evil.example"),
        ("host", ""),
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1.evil.example"),
        ("origin", "file://"),
    ],
)
async def test_rebound_names_and_foreign_pages_are_refused(
    front: Front, header: str, value: str
) -> None:
    """Invariant 6: even with the token, a Host or Origin that is not ours gets nothing."""
    async with front.authorized() as client:
        for method, path in (("POST", "/mcp/v1"), ("GET", "/mcp/v1/sessions")):
            answer = await client.request(method, path, headers={header: value}, content=b"{}")
            assert 400 <= answer.status_code < 500, value
            assert "access-control-allow-origin" not in answer.headers
        own = await client.get("/mcp/v1/sessions", headers={"origin": front.url})
        assert own.status_code == 200, "a page of this host itself is served"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.evil.example",
        "https://evil.example/https://app.example",
        "https://user@app.example",
        "https://app.example:444",
        "http://app.example",
        "HTTPS://APP.EXAMPLE",
        "http://127.0.0.1:80@evil.example",
        "http://127.0.0.1:",
        "http://127.0.0.1:*",
        "http://localhost:3000",
        "https://app.example, https://evil.example",
        "null",
        "*",
    ],
)
async def test_a_page_that_is_not_named_may_send_and_read_nothing(
    front: Front, origin: str
) -> None:
    """Invariant 6: a browser is told of named pages alone, never of all, and never to send
    cookies."""
    asking = {"access-control-request-method": "PUT", "access-control-request-headers": "*"}
    cookies = {"cookie": f"token={TOKEN}; authorization=Bearer {TOKEN}"}
    async with front.http() as client:
        for path in ("/mcp", "/mcp/", "/mcp/v1", "/mcp/v1/", "/mcp/v1/sessions", "/healthz"):
            asked = await client.options(path, headers={"origin": origin, **asking})
            sent = await client.post(path, headers={"origin": origin, **cookies}, content=b"{}")
            for answer in (asked, sent):
                assert answer.status_code in (401, 403, 405), path
                assert not [name for name in answer.headers if name.startswith("access-control")]
        named = {"origin": PAGE, **cookies}
        for path in ("/mcp", "/mcp/v1/sessions/x/files/y"):
            asked = await client.options(path, headers={**named, **asking})
            sent = await client.put(path, headers=named)
            assert (asked.status_code, sent.status_code) == (204, 401), "a cookie is no token"
            for answer in (asked, sent):
                assert answer.headers["access-control-allow-origin"] == PAGE
                assert "access-control-allow-credentials" not in answer.headers
                assert "*" not in str(answer.headers)


async def test_bodies_past_the_limit_are_cut_off(front: Front) -> None:
    """Invariant 3: a body is bounded, whether its length is told, hidden, or a lie."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * MIB

    async with front.authorized() as client:
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }
        told = await client.post("/mcp/v1", content=b" " * (16 * MIB), headers=headers)
        assert told.status_code == 413
        try:
            hidden = await client.post("/mcp/v1", content=endless(), headers=headers)
            assert hidden.status_code == 413
        except httpx.TransportError:
            pass  # cut off before all of it was sent
        rest = await client.post("/mcp/v1/sessions", content=b'{"name": "' + b"a" * MIB + b'"}')
        assert 400 <= rest.status_code < 500
    lie = (
        f"POST /mcp/v1 HTTP/1.1\r\nHost: 127.0.0.1:{front.port}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        "Content-Length: 99999999999999999999\r\n\r\n{}"
    )
    assert b" 200 " not in await front.raw(lie.encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"jsonrpc": "2.0"}',
        b'{"jsonrpc": "1.0", "id": 1, "method": "tools/list"}',
        b'{"jsonrpc": "2.0", "id": {"a": 1}, "method": "tools/list"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": 7}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "no/such"}',
        b'{"jsonrpc": "2.0", "id": 1e400, "method": "tools/list"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 1}}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": []}',
        b"\xff\xfe\x00",
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": '
        b'{"name": "execute_code", "arguments": {"code": "\\ud800"}}}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "' + b"a" * 100_000 + b'"}',
    ],
)
async def test_malformed_rpc_is_an_error_and_no_defect(front: Front, body: bytes) -> None:
    """Invariant 3: nothing that is posted makes the server fail: every answer is the client's
    fault."""
    async with front.authorized() as client:
        for version in ("2026-07-28", "2025-06-18"):
            answer = await client.post(
                "/mcp/v1",
                content=body,
                headers={
                    "content-type": "application/json",
                    "accept": "application/json, text/event-stream",
                    "mcp-protocol-version": version,
                },
            )
            assert answer.status_code < 500
            assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /mcp/v1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /healthz HTTP/1.1\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET " + b"/a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 1000,
    ],
)
async def test_bytes_that_are_no_http_do_no_harm(front: Front, request_bytes: bytes) -> None:
    """Invariant 3: broken, smuggled and endless requests are refused."""
    assert b" 200 " not in await front.raw(request_bytes + b"\r\n\r\n")


@pytest.mark.parametrize(
    "policy",
    [
        "../../x",
        "/etc/passwd",
        "offline.yaml",
        "offline\x00",
        "seccomp/default",
        "..",
        "OFFLINE",
        " ",
    ],
)
async def test_a_policys_name_is_no_path(front: Front, policy: str) -> None:
    """Invariant 5: a name outside the set is refused by MCP and REST, without touching a file."""
    async with front.mcp() as mcp, front.authorized() as client:
        text = refused(await mcp.call_tool("open_session", {"policy": policy}))
        assert "root:" not in text
        answer = await client.post("/mcp/v1/sessions", json={"policy": policy})
        assert 400 <= answer.status_code < 500


@pytest.mark.parametrize(
    "extra",
    [
        {"image": "debian"},
        {"mounts": ["/:/host"]},
        {"network": "bridge"},
        {"runtime": "runc"},
        {"privileged": True},
        {"limits": {"memory_bytes": 10**12}},
        {"user": "0:0"},
        {"seccomp": "unconfined"},
        {"principal": "somebody"},
    ],
)
async def test_a_caller_cannot_name_what_the_policy_decides(
    front: Front, manager: SessionManager, extra: dict[str, Any]
) -> None:
    """Invariant 5: no argument names an image, mount, network, runtime, limit or principal."""
    before = len(manager.list(Caller(LOCAL)))
    async with front.mcp() as mcp, front.authorized() as client:
        refused(await mcp.call_tool("open_session", extra))
        refused(await mcp.call_tool("execute_code", {"code": "1", **extra}))
        answer = await client.post("/mcp/v1/sessions", json=extra)
        assert 400 <= answer.status_code < 500
    assert len(manager.list(Caller(LOCAL))) == before, "nothing was opened"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("execute_code", {"code": "x" * (2 * MIB)}),
        ("execute_code", {"code": "\0"}),
        ("execute_code", {"code": 7}),
        ("execute_code", {"code": "1", "timeout": -1}),
        ("execute_code", {"code": "1", "timeout": 1e308}),
        ("execute_code", {"code": "1", "wait": "inf"}),
        ("execute_code", {"code": "1", "session_id": "../x"}),
        ("execute_code", {"code": "1", "session_id": "*"}),
        ("execute_code", {"code": "1", "session_id": "s" * 10_000}),
        ("execute_code", {"code": "1", "session_id": ["a"]}),
        ("execute_code", {}),
        ("read_file", {"path": "a\0b"}),
        ("write_file", {"path": "x", "content": "=", "encoding": "base64"}),
        ("write_file", {"path": "x", "content": "x", "mode": "4755"}),
        ("write_file", {"path": "x", "content": "x", "encoding": "rot13"}),
        ("list_files", {"limit": 10**12}),
        ("get_execution", {"execution_id": "' OR 1=1 --"}),
    ],
)
async def test_bad_arguments_are_refused_before_anything_runs(
    front: Front, manager: SessionManager, tool: str, arguments: dict[str, Any]
) -> None:
    """Invariant 3: every argument is bounded and typed; a bad one opens no session."""
    before = {info.session_id for info in manager.list(Caller(LOCAL))}
    async with front.mcp() as mcp:
        text = refused(await mcp.call_tool(tool, arguments))
        assert "Traceback" not in text
        assert len(text) < 5000
    new = {info.session_id for info in manager.list(Caller(LOCAL))} - before
    for session_id in new:
        await manager.close(Caller(LOCAL), session_id)
    if tool == "execute_code":
        assert not new


async def test_a_sandboxs_pages_never_run_in_the_controllers_origin(front: Front) -> None:
    """Invariant 3: whatever a cell has written is downloaded as an inert attachment."""
    hostile = {
        "page.html": b"<script>fetch('/mcp/v1/sessions')</script>",
        "picture.svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "code.js": b"alert(1)",
        "feed.xml": b"<?xml version='1.0'?><x/>",
        'in"jec\\ted; filename=x.html': b"<script>",
        "\u202elmth.gnp": b"<script>",
    }
    async with front.authorized() as client:
        opened = (await client.post("/mcp/v1/sessions", json={"reuse": False})).json()
        base = f"/mcp/v1/sessions/{opened['session_id']}"
        try:
            for name, content in hostile.items():
                path = f"{base}/files/" + "".join(f"%{byte:02X}" for byte in name.encode())
                assert (await client.put(path, content=content)).status_code < 300, name
                answer = await client.get(path)
                assert answer.content == content
                kind = answer.headers["content-type"].partition(";")[0]
                assert kind in ("application/octet-stream", "text/plain"), name
                assert answer.headers["content-disposition"].startswith("attachment")
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert "sandbox" in answer.headers["content-security-policy"]
                assert '"; filename=x' not in answer.headers["content-disposition"]
        finally:
            await client.delete(base)


def sandboxes_of(engine: docker.DockerClient, manager: SessionManager) -> set[str]:
    """The ids of the containers of a controller."""
    label = {"label": f"{LABEL_OWNER}={manager.owner}"}
    return {container.id for container in engine.containers.list(all=True, filters=label)}


async def test_opening_past_the_quota_leaves_nothing_half_made(
    front: Front, manager: SessionManager, engine: docker.DockerClient
) -> None:
    """Policy rule limits.sessions: of thirty opens at once the quota's number succeed."""
    caller = Caller("greedy")
    opened: list[str] = []
    refusals: list[str] = []

    async def open_one() -> None:
        from sandbox.errors import QuotaExceeded

        try:
            session = await manager.open(caller, reuse=False)
            opened.append(session.session_id)
        except QuotaExceeded as exc:
            refusals.append(exc.code)

    before = sandboxes_of(engine, manager)
    with anyio.fail_after(120):
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(open_one)
    quota = manager.policies.get().limits.sessions_per_principal
    assert (len(opened), len(refusals)) == (quota, 30 - quota)
    assert len(sandboxes_of(engine, manager) - before) == quota
    for session_id in opened:
        await manager.close(caller, session_id)
    assert sandboxes_of(engine, manager) <= before


async def test_health_tells_strangers_nothing(front: Front) -> None:
    """Invariant 6: what is served without a token names no session, version, path or policy."""
    async with front.http() as client:
        for path in ("/healthz", "/readyz"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert len(answer.content) < 64
            assert "server" not in answer.headers
        for path in (
            "/",
            "/docs",
            "/openapi.json",
            "/metrics",
            "/.well-known/oauth-protected-resource",
        ):
            assert (await client.get(path)).status_code in (401, 404)


async def test_the_token_is_long_random_and_private(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Invariant 6: a made token has 256 bits, its file mode 0600; a readable file is refused."""
    from sandbox.errors import ConfigError

    folder = tmp_path_factory.mktemp("token")
    settings = Settings(state_dir=folder)
    token = server_token(settings, folder)
    assert len(token) >= 43
    assert server_token(settings, folder) == token
    assert server_token(settings, tmp_path_factory.mktemp("other")) != token
    path = next(path for path in folder.iterdir() if path.read_text().strip() == token)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError):
        read_token(path)
