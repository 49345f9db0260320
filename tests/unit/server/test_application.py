"""MCP, REST and health in one application, over an engine in memory."""

from __future__ import annotations

import json

import anyio
import httpx
import pytest

from sandbox.server.application import MAX_MCP_BODY
from sandbox.testing import FakeEngine

pytestmark = pytest.mark.anyio

MODERN = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "MCP-Protocol-Version": "2026-07-28",
}


async def open_session(http: httpx.AsyncClient, **wanted: object) -> str:
    answer = await http.post("/mcp/v1/sessions", json=wanted)
    assert answer.status_code == 201, answer.text
    return answer.json()["session_id"]


async def test_sessions_are_opened_listed_shown_and_closed(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    session_id = await open_session(http, name="mine")
    listed = (await http.get("/mcp/v1/sessions")).json()["sessions"]
    shown = (await http.get(f"/mcp/v1/sessions/{session_id}")).json()
    assert [info["session_id"] for info in listed] == [session_id] == [shown["session_id"]]
    assert shown["name"] == "mine"
    assert (await http.delete(f"/mcp/v1/sessions/{session_id}")).status_code == 200
    assert not engine.containers


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"polcy": "offline"}', "polcy"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"[" * 9000, "body"),
        (b'{"reuse": "perhaps"}', "reuse"),
        (b'{"policy": "\\ud800"}', ""),
        (b'{"name": NaN}', "body"),
    ],
)
async def test_a_wrong_body_is_a_problem_that_names_the_field(
    http: httpx.AsyncClient, engine: FakeEngine, body: bytes, reason: str
) -> None:
    answer = await http.post("/mcp/v1/sessions", content=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert reason in answer.json()["detail"]
    assert not engine.containers


async def test_a_policy_named_like_a_path_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/mcp/v1/sessions", json={"policy": "../../x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "policy_error")


async def test_a_file_goes_up_and_comes_down_unchanged_and_is_never_rendered(
    http: httpx.AsyncClient,
) -> None:
    session_id = await open_session(http)
    url = f"/mcp/v1/sessions/{session_id}/files/dir/a page.html"
    data = bytes(range(256)) * 4096
    put = await http.put(url, content=data)
    got = await http.get(url)
    assert put.status_code == 201
    assert put.json()["size"] == len(data)
    assert got.content == data
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"].startswith('attachment; filename="a page.html"')
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["etag"] == put.headers["etag"]


async def test_a_tilde_in_a_path_is_the_home_folder(http: httpx.AsyncClient) -> None:
    files = f"/mcp/v1/sessions/{await open_session(http)}/files"
    await http.put(f"{files}/~/a", content=b"at home")
    assert (await http.get(f"{files}/a")).content == b"at home"
    assert (await http.get(f"{files}/%7E/a")).content == b"at home"
    assert (await http.delete(f"{files}/~/a")).json() == {"deleted": 1}


@pytest.mark.parametrize(
    ("wanted", "status", "span"),
    [
        ("bytes=0-3", 206, slice(0, 4)),
        ("bytes=5-", 206, slice(5, None)),
        ("bytes=-4", 206, slice(-4, None)),
        ("bytes=6-6", 206, slice(6, 7)),
        ("bytes=8-99999999", 206, slice(8, None)),
        ("bytes=10-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-2", 200, slice(0, None)),
        ("bytes=0-1,3-4", 200, slice(0, None)),
        ("lines=0-1", 200, slice(0, None)),
        ("bytes=-", 200, slice(0, None)),
    ],
)
async def test_ranges_of_a_file(
    http: httpx.AsyncClient, wanted: str, status: int, span: slice | None
) -> None:
    url = f"/mcp/v1/sessions/{await open_session(http)}/files/f"
    await http.put(url, content=b"0123456789")
    got = await http.get(url, headers={"Range": wanted})
    assert got.status_code == status
    if span is not None:
        assert got.content == b"0123456789"[span]
    if status == 206:
        assert got.headers["content-range"].endswith("/10")


async def test_an_empty_file_and_the_headers_alone(http: httpx.AsyncClient) -> None:
    url = f"/mcp/v1/sessions/{await open_session(http)}/files/empty"
    await http.put(url, content=b"")
    got, head = await http.get(url), await http.head(url)
    assert (got.status_code, got.content) == (200, b"")
    assert (head.status_code, head.headers["content-length"]) == (200, "0")


async def test_a_new_file_is_created_and_one_that_is_there_replaced(
    http: httpx.AsyncClient,
) -> None:
    url = f"/mcp/v1/sessions/{await open_session(http)}/files/a%20dir/%C3%A9%23"
    created, replaced = await http.put(url, content=b"1"), await http.put(url, content=b"2")
    assert (created.status_code, created.headers["location"]) == (201, url)
    assert (replaced.status_code, "location" in replaced.headers) == (200, False)
    assert (await http.get(created.headers["location"])).content == b"2"
    condition = {"If-Match": replaced.headers["etag"]}
    assert (await http.put(url, content=b"3", headers=condition)).status_code == 200
    assert (await http.put(url, content=b"4", headers=condition)).status_code == 412


async def test_deleting_a_file(http: httpx.AsyncClient) -> None:
    url = f"/mcp/v1/sessions/{await open_session(http)}/files/f"
    await http.put(url, content=b"x")
    assert (await http.delete(url)).json() == {"deleted": 1}
    gone = await http.get(url)
    assert (gone.status_code, gone.json()["code"]) == (404, "file_error.not_found")


async def test_a_foreign_or_absent_session_is_not_found(http: httpx.AsyncClient) -> None:
    for path in ("/mcp/v1/sessions/absent", "/mcp/v1/sessions/absent/files/a"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_policy_that_allows_no_reading_allows_no_download(http: httpx.AsyncClient) -> None:
    session_id = await open_session(http, policy="strict")
    url = f"/mcp/v1/sessions/{session_id}/files/f"
    assert (await http.put(url, content=b"x")).status_code == 201
    assert (await http.get(url)).status_code == 200
    refused = await http.delete(url)
    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/mcp/nothing", 404),
        ("GET", "/mcp/v1/nothing", 404),
        ("PATCH", "/mcp/v1/sessions", 405),
        ("POST", "/mcp/v1/sessions/x/files/y", 405),
        ("PUT", "/mcp/v1/sessions/x/files/", 400),
    ],
)
async def test_what_means_nothing_is_a_problem(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    if status == 400:
        path = path.replace("/x/", f"/{await open_session(http)}/")
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"[1]", 400),
        (b'"x"', 400),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "tools/list"}', 400),
        (b'{"jsonrpc": "2.0", "id": 1}', 400),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "tools/list"}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 5000, 400),
        (b"[" * 100_000, 413),
        (b'{"jsonrpc": "2.0", "id": ' + b"9" * 10_000 + b', "method": "x"}', 400),
        (b" " * (MAX_MCP_BODY + 1), 413),
    ],
)
@pytest.mark.parametrize("era", [MODERN, {**MODERN, "MCP-Protocol-Version": "2025-06-18"}])
async def test_malformed_json_rpc_is_refused_and_the_server_goes_on(
    http: httpx.AsyncClient, era: dict[str, str], body: bytes, status: int
) -> None:
    answer = await http.post("/mcp/v1", content=body, headers=era)
    assert answer.status_code == status
    assert (await http.get("/mcp/v1/sessions")).status_code == 200


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/mcp/v1", "/mcp/v1/"])
async def test_mcp_answers_under_each_of_its_names(http: httpx.AsyncClient, path: str) -> None:
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    call = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    headers = {"Accept": MODERN["Accept"]}
    answer = await http.post(path, json=call, headers=headers)
    assert answer.status_code == 200
    told = json.loads(answer.text.partition("data: ")[2].splitlines()[0])
    assert told["result"]["serverInfo"]["name"] == "sandbox"
    assert told["result"]["capabilities"].keys() == {"prompts", "resources", "tools"}
    session = {"Mcp-Session-Id": answer.headers["mcp-session-id"]}
    assert (await http.delete(path, headers=headers | session)).status_code == 200
    for wrong in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}):
        assert (await http.post(path, json=call, headers=headers | wrong)).status_code == 401
    assert (await http.post(path, json=call, headers={"Host": "evil.example"})).status_code == 421
    foreign = {"Origin": "https://evil.example"}
    assert (await http.post(path, json=call, headers=foreign)).status_code == 403
    assert (await http.post(path, content=b" " * (MAX_MCP_BODY + 1))).status_code == 413


async def test_methods_that_the_modern_protocol_has_not_are_not_allowed(
    http: httpx.AsyncClient,
) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = await http.request(method, "/mcp/v1", headers=MODERN)
        assert answer.status_code == 405


async def test_readiness_follows_the_engine(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert (await http.get("/readyz", headers={"Authorization": ""})).status_code == 200
    engine.is_down = True
    with anyio.fail_after(10):
        while True:
            if (await http.get("/readyz")).status_code == 503:
                break
            await anyio.sleep(0.05)


async def test_an_engine_that_is_down_is_a_503_and_comes_back(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.is_down = True
    down = await http.post("/mcp/v1/sessions")
    assert (down.status_code, down.json()["code"]) == (503, "engine_unavailable")
    engine.is_down = False
    await open_session(http)


async def test_a_sessions_network_is_tightened_by_rest(http: httpx.AsyncClient) -> None:
    session_id = await open_session(http)
    url = f"/mcp/v1/sessions/{session_id}/tighten"
    answer = await http.post(url, json={"deny": ["example.com"]})
    assert answer.json()["network"]["deny"] == ["domain example.com"]
    for wrong in ({}, {"deny": ["*.com"]}, {"network": "all"}, {"allow": ["x.example"]}):
        assert (await http.post(url, json=wrong)).status_code == 400


async def test_what_ran_in_a_session_is_listed_by_rest(http: httpx.AsyncClient) -> None:
    session_id = await open_session(http)
    url = f"/mcp/v1/sessions/{session_id}/executions"
    assert (await http.get(url)).json() == {"executions": []}
    call = {"name": "execute_code", "arguments": {"code": "print(1)", "session_id": session_id}}
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {**call, "_meta": meta}
    headers = {**MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "execute_code"}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    assert (await http.post("/mcp/v1", json=asked, headers=headers)).status_code == 200
    (found,) = (await http.get(url)).json()["executions"]
    assert (found["status"], found["code"]) == ("ok", "print(1)")
    await http.delete(f"/mcp/v1/sessions/{session_id}")
    assert len((await http.get(url)).json()["executions"]) == 1, "also after its end"
    assert (await http.get("/mcp/v1/sessions/s-none/executions")).status_code == 404
