"""Attacks on sessions as Jupyter Servers: who must not get in, what clients and kernels send."""

from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox import resources
from sandbox.cli.wiring import session_manager
from sandbox.config import Settings
from sandbox.kernels.conversation import converse
from sandbox.kernels.jupytermessages import client_message
from sandbox.policy import load
from sandbox.server.credentials import KERNEL_SUBPROTOCOL
from sandbox.server.desk import Desk
from sandbox.sessions.slots import take_slot
from sandbox.testing import FakeEngine, FakeRuntime

from ..support.jupyterloopback import (
    ALICE,
    BOB,
    GRANTS,
    READER,
    JupyterServer,
    serving_jupyter,
)
from ..support.wsclient import BINARY, TEXT, frame
from .conftest import Attacked

pytestmark = pytest.mark.anyio

CHANNELS = "api/kernels/k-default/channels"
STRICT = "version: 1\ndescription: Only files.\nextends: offline\ntools: [read_file, write_file]\n"
TYPING = STRICT.replace("read_file, write_file", "open_terminal, read_terminal, write_terminal")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[JupyterServer]:
    """All that is served, over an engine in memory; its record is in ``tmp_path``."""
    state, own = tmp_path / "state", tmp_path / "policies"
    own.mkdir()
    (own / "strict.yaml").write_text(STRICT)
    (own / "typing.yaml").write_text(TYPING)
    with take_slot(state, "serve") as slot:
        async with (
            session_manager(
                FakeRuntime(FakeEngine()),
                load(resources.policies(), own),
                Settings(state_dir=state),
                slot,
                image_for=lambda name: f"sandbox/{name}:test",
                keep=False,
            ) as manager,
            serving_jupyter(Desk(manager)) as running,
        ):
            yield running


def said(kind: str, msg_id: str = "m", **content: Any) -> bytes:
    """A message of a client."""
    header = {"msg_id": msg_id, "msg_type": kind}
    return json.dumps({"channel": "shell", "header": header, "content": content}).encode()


async def test_without_a_token_no_jupyter_client_gets_in(server: JupyterServer) -> None:
    """Invariant 6: nothing of a session is told or done without a good token."""
    base = f"/jupyter/{await server.opened()}"
    async with server.http("") as http:
        for path in ("/api", "/api/kernels", "/api/contents", "/files/x", "/", "/lab"):
            for given in ("", "?token=", "?token=wrong", f"?access_token={ALICE}"):
                answer = await http.get(f"{base}{path}{given}", headers={"Cookie": f"t={ALICE}"})
                assert answer.status_code == 401, path
    for path in (CHANNELS, "terminals/websocket/t-1"):
        for token in ("", "wrong"):
            assert (await server.socket(f"{base}/{path}", token)).answer.status == 401


async def test_a_jupyter_client_has_the_scopes_of_its_token_and_no_more(
    server: JupyterServer,
) -> None:
    """Invariant 6: code, terminals and writing need their scopes here as over MCP."""
    base = f"/jupyter/{await server.opened()}"
    async with server.http(READER) as http:
        assert (await http.get(f"{base}/api/contents")).status_code == 200
        for method, path in (
            ("GET", "/api/kernels"),
            ("POST", "/api/kernels"),
            ("POST", "/api/kernels/k-default/restart"),
            ("DELETE", "/api/kernels/k-default"),
            ("POST", "/api/sessions"),
            ("POST", "/api/terminals"),
            ("PUT", "/api/contents/x"),
            ("POST", "/api/contents"),
            ("PATCH", "/api/contents/x"),
            ("DELETE", "/api/contents/x"),
            ("POST", "/api/contents/x/checkpoints"),
        ):
            answer = await http.request(method, f"{base}{path}", json={})
            assert answer.status_code == 403, path
            assert "scope=" in answer.headers["www-authenticate"]
    for path in (CHANNELS, "terminals/websocket/t-1"):
        assert (await server.socket(f"{base}/{path}", READER)).answer.status == 403


async def test_a_jupyter_client_has_the_tools_of_the_policy_and_no_more(
    server: JupyterServer,
) -> None:
    """Invariant 5: what a policy does not allow as a tool is not there in this form either."""
    session = await server.desk.manager.open(_caller(), policy="strict", name="strict", reuse=False)
    base = f"/jupyter/{session.session_id}"
    async with server.http() as http:
        put = await http.put(f"{base}/api/contents/x", json={"type": "file", "content": "1"})
        assert put.status_code == 201
        for method, path in (
            ("GET", "/api/kernels"),
            ("GET", "/api/contents"),
            ("DELETE", "/api/contents/x"),
            ("PATCH", "/api/contents/x"),
            ("GET", "/api/terminals"),
        ):
            answer = await http.request(method, f"{base}{path}", json={"path": "y"})
            assert (answer.status_code, answer.json()["reason"]) == (403, "not_permitted"), path
    assert (await server.socket(f"{base}/{CHANNELS}")).answer.status == 403
    session = await server.desk.manager.open(_caller(), policy="typing", name="typing", reuse=False)
    before = await session.terminals.open()
    path = f"/jupyter/{session.session_id}/terminals/websocket/{before.terminal_id}"
    client = await server.socket(path)
    assert client.answer.status == 101
    for each in (["set_size", 40, 100], ["stdin", "echo typed\r"]):
        client.say(frame(TEXT, json.dumps(each).encode()))
    shown = b""
    with anyio.fail_after(10):
        while b"typed" not in shown:
            shown += (await client.heard())[1]
    (after,) = session.terminals.infos
    assert (after.rows, after.cols) == (before.rows, before.cols)


async def test_a_foreign_session_looks_as_an_absent_one(server: JupyterServer) -> None:
    """Invariant 6: another principal cannot tell whether a session is there."""
    session_id = await server.opened()
    absent = "s-" + "a" * (len(session_id) - 2)
    async with server.http(BOB) as http:
        for path in ("api", "api/kernels", "api/contents/x", "files/x", "api/sessions/y"):
            found = [await http.get(f"/jupyter/{each}/{path}") for each in (session_id, absent)]
            assert found[0].status_code == found[1].status_code == 404
            assert found[0].text.replace(session_id, absent) == found[1].text
    for path in (CHANNELS, "terminals/websocket/t-1"):
        sockets = [await server.socket(f"/jupyter/{e}/{path}", BOB) for e in (session_id, absent)]
        assert [each.answer.status for each in sockets] == [404, 404]


async def test_a_token_in_an_address_is_kept_nowhere(
    server: JupyterServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Invariant 6: neither the record nor a log nor an answer has it."""
    caplog.set_level(logging.DEBUG)
    session_id = await server.opened()
    base = f"/jupyter/{session_id}"
    async with server.http("") as http:
        for path in ("/api", "/api/kernels", "/nothing", "/api/contents/none"):
            answer = await http.get(f"{base}{path}?token={ALICE}&x=1")
            assert ALICE not in answer.text + str(answer.headers)
    await server.socket(f"{base}/{CHANNELS}")
    await server.socket(f"{base}/api/nothing")
    caplog.handler.flush()
    ours = [each.getMessage() for each in caplog.records if not each.name.startswith("httpx")]
    assert ALICE not in "\n".join(ours)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"/jupyter/{session_id}/api" in kept, "but the requests are on record"
    assert ALICE.encode() not in kept


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}]
)
async def test_a_foreign_page_opens_nothing_of_a_jupyter_server(
    server: JupyterServer, headers: dict[str, str]
) -> None:
    """Invariant 6: a page of another origin gets in by no way, whatever token it has."""
    base = f"/jupyter/{await server.opened()}"
    for path in (CHANNELS, "terminals/websocket/t-1"):
        client = await server.socket(f"{base}/{path}", **headers)
        assert client.answer.status in (403, 421)
    async with server.http() as http:
        answer = await http.post(f"{base}/api/kernels", headers=headers)
        assert answer.status_code in (403, 421)
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("protocols", "opcode", "data"),
    [
        ((), TEXT, b""),
        ((), TEXT, b"no JSON"),
        ((), TEXT, b"[]"),
        ((), TEXT, b"[" * 100_000),
        ((), TEXT, b'{"a":' * 5000),
        ((), TEXT, b'{"channel": "shell", "header": {}}'),
        ((), TEXT, b'{"channel": "iopub", "header": {"msg_id": "a", "msg_type": "status"}}'),
        ((), TEXT, b'{"header": {"msg_id": "a", "msg_type": "x"}, "content": [' + b"[]," * 99_999),
        ((), BINARY, b"\0"),
        ((), BINARY, struct.pack("!II", 1, 4_000_000_000)),
        ((), BINARY, struct.pack("!I", 2**31) + bytes(64)),
        ((), BINARY, struct.pack("!III", 2, 12, 4) + b"{}"),
        ((KERNEL_SUBPROTOCOL,), TEXT, b"{}"),
        ((KERNEL_SUBPROTOCOL,), BINARY, b""),
        ((KERNEL_SUBPROTOCOL,), BINARY, struct.pack("<Q", 2**63)),
        ((KERNEL_SUBPROTOCOL,), BINARY, struct.pack("<7Q", 6, 56, 50, 60, 60, 60, 2**60)),
        ((KERNEL_SUBPROTOCOL,), BINARY, struct.pack("<7Q", 6, 0, 0, 0, 0, 0, 0)),
    ],
)
async def test_a_malformed_frame_ends_its_own_connection_only(
    server: JupyterServer, protocols: tuple[str, ...], opcode: int, data: bytes
) -> None:
    """Invariant 3: what is no message is refused before it costs anything."""
    path = f"/jupyter/{await server.opened()}/{CHANNELS}"
    honest = await server.socket(path)
    hostile = await server.socket(path, protocols=protocols)
    assert (honest.answer.status, hostile.answer.status) == (101, 101)
    hostile.say(frame(opcode, data))
    assert await hostile.close_code() == 4400
    honest.say(frame(TEXT, said("kernel_info_request")))
    while json.loads((await honest.heard())[1])["msg_type"] != "kernel_info_reply":
        pass


@pytest.mark.timed
async def test_a_flood_of_kernel_messages_holds_nobody_else_up(server: JupyterServer) -> None:
    """Invariant 3: thousands of requests of one client are bounded, and others are answered."""
    session_id = await server.opened()
    hostile = await server.socket(f"/jupyter/{session_id}/{CHANNELS}")
    for kind in ("comm_msg", "execute_request", "history_request", "interrupt_request", "odd"):
        hostile.say(frame(TEXT, said(kind, code="sleep(1)")) * 2000)
    waits: list[float] = []
    async with server.http(BOB) as http:
        for _ in range(30):
            started = time.monotonic()
            assert (await http.get("/mcp/v1/sessions")).status_code == 200
            waits.append(time.monotonic() - started)
    assert sorted(waits)[len(waits) // 2] < 0.25
    session = await server.desk.manager.get(_caller(), session_id)
    assert session.kernels.infos[0].queue_length <= 1


async def test_a_path_of_the_contents_leads_nowhere_else(server: JupyterServer) -> None:
    """Invariant 3: no path of a client leaves the workspace by its form."""
    base = f"/jupyter/{await server.opened()}"
    ways = ("%2e%2e/etc/passwd", "a/%2e%2e/%2e%2e/etc/passwd", "%2e%2e%2fetc%2fpasswd", "a%00b")
    async with server.http() as http:
        for way in ways:
            for method, where in (
                ("GET", f"/api/contents/{way}"),
                ("PUT", f"/api/contents/{way}"),
                ("DELETE", f"/api/contents/{way}"),
                ("POST", f"/api/contents/{way}"),
                ("GET", f"/files/{way}"),
                ("POST", f"/api/contents/{way}/checkpoints"),
                ("GET", f"/api/contents/{way}/checkpoints"),
            ):
                answer = await http.request(method, base + where, json={"content": "x"})
                assert answer.status_code == 400, (method, where, answer.text)
        await http.put(f"{base}/api/contents/x", json={"type": "file", "content": "1"})
        for body, method, where in (
            ({"path": "../y"}, "PATCH", "/api/contents/x"),
            ({"copy_from": "../../etc/passwd"}, "POST", "/api/contents"),
            ({"ext": "/../../y"}, "POST", "/api/contents"),
        ):
            answer = await http.request(method, base + where, json=body)
            assert answer.status_code == 400, body


async def test_no_page_of_a_sandbox_is_rendered_in_our_origin(server: JupyterServer) -> None:
    """Invariant 3: a file is an attachment that no browser runs, and JSON is never sniffed."""
    base = f"/jupyter/{await server.opened()}"
    page = "<script>fetch('/jupyter/default/api/kernels')</script>"
    async with server.http() as http:
        for name in ("x.html", "x.svg", "x.xhtml", "x.js", "x.pdf", "x.ipynb"):
            await http.put(f"{base}/api/contents/{name}", json={"type": "file", "content": page})
            got = await http.get(f"{base}/files/{name}")
            assert got.text == page
            assert got.headers["content-disposition"].startswith("attachment")
            assert got.headers["x-content-type-options"] == "nosniff"
            assert got.headers["content-security-policy"].startswith("sandbox")
            assert got.headers["content-type"] == "application/octet-stream"
            shown = await http.get(f"{base}/api/contents/{name}?type=file")
            assert shown.headers["content-type"] == "application/json"
            assert shown.headers["x-content-type-options"] == "nosniff"


FORGING = """
import json, uuid
kernel = get_ipython().kernel
def forge(socket, kind, content, parent, **more):
    header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "session": "x", "username": "x",
              "date": "no date", "version": "nonsense", **more}
    parts = [json.dumps(each, default=str).encode() for each in (header, parent, {}, content)]
    kernel.session.send_raw(socket, parts)
own = kernel.get_parent()["header"]
iopub = kernel.iopub_socket
forge(iopub, "execute_reply", {"status": "ok", "forged": True}, own)
forge(iopub, "status", {"execution_state": "idle" * 1000}, own)
forge(iopub, "status", {"execution_state": ["idle"]}, {"msg_id": "of-another"})
forge(iopub, "input_request", {"prompt": "password?", "password": True}, own)
forge(iopub, "shutdown_reply", {"restart": False}, own)
forge(iopub, "x" * 10_000, {}, own)
forge(iopub, "stream", {"name": 7, "text": ["no text"]}, {"msg_id": {"deep": []}})
forge(iopub, "comm_msg", {"comm_id": None, "data": "no object"}, own, msg_type=5)
iopub.send_multipart([b"stream", b"<IDS|MSG>", b"", b"no json", b"{", b"", b"[]"])
print("the end")
"""


async def test_a_kernel_forges_no_answer_of_another(sandbox: Attacked) -> None:
    """Invariant 8: what code in a kernel publishes answers no request that it did not get, and
    whoever listens goes on."""
    await sandbox.cell("pass")
    kernels = sandbox.session.kernels

    def message(msg_id: str, code: str) -> Any:
        header = {"msg_id": msg_id, "msg_type": "execute_request", "session": "s"}
        return client_message("shell", header, {}, {}, {"code": code})

    async with converse(kernels) as one, converse(kernels) as two:
        heard: dict[str, list[Any]] = {"one": [], "two": []}
        await two.send(message("of-another", "pass"))
        await one.send(message("own", FORGING))
        with anyio.fail_after(60):
            async for each in one.messages():
                heard["one"].append(each)
                if (each.channel, each.msg_type) == ("shell", "execute_reply"):
                    assert each.content["status"] == "ok", each.content
                    break
            async for each in two.messages():
                heard["two"].append(each)
                if each.msg_type == "stream" and each.content.get("text") == "the end\n":
                    break
    (reply,) = [each for each in heard["one"] if each.channel == "shell"]
    assert "forged" not in reply.content
    assert reply.parent_header["msg_id"] == "own"
    for each in (*heard["one"], *heard["two"]):
        assert each.channel != "stdin", "a question is no output"
        assert len(each.msg_type) <= 200
        assert each.header["session"].startswith("k-default")
        json.dumps([each.header, each.parent_header, each.content])
    assert await sandbox.is_alive()


def _caller() -> Any:
    return GRANTS[ALICE].caller()
