"""Who gets in below ``/jupyter``, and what stays of how they did."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.requests import Request

from sandbox.errors import InvalidRequest
from sandbox.server.credentials import KERNEL_SUBPROTOCOL, SUBPROTOCOL, take_token
from sandbox.server.desk import Desk
from sandbox.server.grants import LOCAL_GRANT
from sandbox.server.jupyter.visits import MAX_BODY, Wanted, body

from ..conftest import TOKEN

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Authorization": f"Bearer {TOKEN}"}, ""),
        ({"Authorization": f"token {TOKEN}"}, ""),
        ({"Authorization": f"Token {TOKEN}"}, "?x=1"),
        ({}, f"?token={TOKEN}"),
        ({"Authorization": f"token {TOKEN}"}, f"?a=b&token={TOKEN}"),
        ({}, f"?%74oken={TOKEN}"),
    ],
)
async def test_each_way_of_jupyter_clients_to_show_a_token_is_one(
    http: httpx.AsyncClient, headers: dict[str, str], query: str
) -> None:
    answer = await http.get(f"/jupyter/default/api{query}", headers=headers)
    assert answer.status_code == 200
    assert "version" in answer.json()


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({}, "/jupyter/default/api"),
        ({}, "/jupyter"),
        ({}, f"/jupyter?token={TOKEN}"),
        ({}, "/jupyter/default/api?token="),
        ({}, f"/jupyter/default/api?token={TOKEN}x"),
        ({}, f"/jupyter/default/api?Token={TOKEN}"),
        ({"Cookie": f"token={TOKEN}"}, "/jupyter/default/api"),
        ({"Authorization": f"token {TOKEN}"}, "/jupyter/default/api?token=another"),
        ({}, f"/jupyter/default/api?token={TOKEN}&token=another"),
        ({"Authorization": f"token {TOKEN}"}, "/mcp/v1/sessions"),
        ({}, f"/mcp/v1/sessions?token={TOKEN}"),
    ],
)
async def test_without_one_good_token_nobody_gets_in(
    http: httpx.AsyncClient, headers: dict[str, str], path: str
) -> None:
    answer = await http.get(path, headers=headers)
    assert answer.status_code == 401
    assert TOKEN not in answer.text


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [("Origin", "https://evil.example", 403), ("Host", "evil.example", 421)],
)
async def test_another_host_or_origin_is_refused_with_a_token_too(
    http: httpx.AsyncClient, name: str, value: str, status: int
) -> None:
    answer = await http.get(f"/jupyter/default/api?token={TOKEN}", headers={name: value})
    assert answer.status_code == status


def shaken(**more: Any) -> dict[str, Any]:
    """The scope of a WebSocket's handshake."""
    return {
        "type": "websocket",
        "path": "/jupyter/s/api/kernels/k/channels",
        "headers": [],
        "query_string": b"",
        "subprotocols": [],
        **more,
    }


def test_a_websocket_of_a_page_carries_its_token_in_the_address_which_has_none_then() -> None:
    scope = shaken(query_string=f"session_id=x%20y&token={TOKEN}".encode())
    assert take_token(scope) == TOKEN
    assert scope["query_string"] == b"session_id=x+y"


def test_a_websocket_elsewhere_has_no_token_in_its_address() -> None:
    scope = shaken(path="/mcp/v1/sessions/s/kernel", query_string=f"token={TOKEN}".encode())
    assert take_token(scope) == ""


def test_only_what_a_front_may_select_of_the_sub_protocols_is_left() -> None:
    offered = ["other", KERNEL_SUBPROTOCOL, SUBPROTOCOL, f"sandbox.bearer.{TOKEN}"]
    scope = shaken(subprotocols=offered)
    take_token(scope)
    assert scope["subprotocols"] == [SUBPROTOCOL, KERNEL_SUBPROTOCOL]


async def test_every_request_is_on_record_without_its_token(
    http: httpx.AsyncClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Any] = []
    asked: list[Any] = []
    monkeypatch.setattr(desk.manager.audit, "record", recorded.append)

    def digest_of(arguments: Any) -> str:
        asked.append(arguments)
        return ""

    monkeypatch.setattr("sandbox.audit.calls.digest_of", digest_of)
    for path in ("api", "api/status", "nothing"):
        await http.get(f"/jupyter/default/{path}?token={TOKEN}&x=1")
    found = [(each.tool, each.outcome) for each in recorded if hasattr(each, "transport")]
    assert found == [
        ("GET /jupyter/{session_id}/api", "ok"),
        ("GET /jupyter/{session_id}/api/status", "ok"),
        ("GET /jupyter/default/nothing", "refused"),
    ]
    assert [each["query"] for each in asked] == ["x=1"] * 3
    assert TOKEN not in str(asked) + str(recorded)


async def test_an_absent_session_is_told_in_the_form_of_a_jupyter_server(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.get(f"/jupyter/s-none/api?token={TOKEN}")
    assert answer.status_code == 404
    assert set(answer.json()) == {"message", "reason"}
    assert answer.json()["reason"] == "not_found"


async def test_an_ended_session_is_told_to_have_ended(http: httpx.AsyncClient, desk: Desk) -> None:
    session = await desk.manager.open(LOCAL_GRANT.caller())
    await desk.manager.close(LOCAL_GRANT.caller(), session.session_id)
    answer = await http.get(f"/jupyter/{session.session_id}/api?token={TOKEN}")
    assert (answer.status_code, answer.json()["reason"]) == (410, "session_lost")


async def test_a_body_that_is_too_long_or_has_no_end_is_refused(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    headers, path = {"Authorization": f"token {TOKEN}"}, "/jupyter/default/api/kernels"
    answer = await http.post(path, content=b" " * (MAX_BODY + 1), headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (413, "too_much_work")

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "headers": []}
    with pytest.raises(InvalidRequest):
        await body(Request(scope, gone), Wanted)


async def test_default_is_the_session_that_is_open_already(
    http: httpx.AsyncClient, desk: Desk
) -> None:
    await desk.manager.open(LOCAL_GRANT.caller(), name="older", reuse=False)
    await http.get(f"/jupyter/default/api?token={TOKEN}")
    assert len(desk.manager.list(LOCAL_GRANT.caller())) == 1
