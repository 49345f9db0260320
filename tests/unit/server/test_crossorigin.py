"""Pages of other origins: which may call, and what a browser is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from sandbox.config import Settings
from sandbox.server.auth import Gate, security_settings
from sandbox.server.crossorigin import CrossOrigin
from sandbox.server.localtoken import LocalToken

TOKEN = "0123456789abcdef0123"
NAMED = ("https://app.example", "http://localhost:*")
PAGE = {"Origin": "https://app.example"}
ASKING = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,mcp-protocol-version",
}
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}


def make_client(tmp_path: Path, origins: tuple[str, ...] = NAMED) -> TestClient:
    settings = Settings(state_dir=tmp_path, allowed_origins=origins)
    gate = Gate(
        PlainTextResponse("served", headers={"Vary": "Accept"}),
        LocalToken(TOKEN),
        security_settings(settings),
        lambda *_: None,
        cross_origin=CrossOrigin(settings.allowed_origins),
    )
    return TestClient(gate, base_url="http://127.0.0.1:8000")


def told(answer: Any) -> dict[str, str]:
    """What an answer says to a browser about other origins."""
    return {name: text for name, text in answer.headers.items() if name.startswith("access-")}


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/mcp/v1", "/mcp/v1/", "/mcp/v1/sessions/x"])
@pytest.mark.parametrize("origin", ["https://app.example", "http://localhost:5173"])
def test_a_named_pages_browser_is_told_without_a_token_what_the_page_may_send(
    tmp_path: Path, path: str, origin: str
) -> None:
    answer = make_client(tmp_path).options(path, headers={"Origin": origin, **ASKING})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == origin
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert set(ASKING["Access-Control-Request-Headers"].split(",")) <= set(allowed)
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers


def test_a_named_page_reads_its_answers_and_its_refusals(tmp_path: Path) -> None:
    client = make_client(tmp_path)
    served, refused = (
        client.get("/mcp", headers=PAGE | WITH_TOKEN),
        client.get("/mcp", headers=PAGE),
    )
    assert (served.status_code, refused.status_code) == (200, 401)
    for answer in (served, refused):
        assert answer.headers["access-control-allow-origin"] == PAGE["Origin"]
        assert "Mcp-Session-Id" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers
    assert served.headers["vary"] == "Accept, Origin"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.evil.example",
        "https://app.example:8443",
        "http://app.example",
        "http://localhost",
        "http://localhost:*",
        "null",
        "*",
    ],
)
def test_a_page_that_is_not_named_is_told_nothing(tmp_path: Path, origin: str) -> None:
    client = make_client(tmp_path)
    asked = client.options("/mcp", headers={"Origin": origin, **ASKING})
    served = client.get("/mcp", headers={"Origin": origin, **WITH_TOKEN})
    assert asked.status_code in (401, 403)
    assert (told(asked), told(served)) == ({}, {})


def test_where_no_origin_is_named_no_other_page_is_answered(tmp_path: Path) -> None:
    client, own = make_client(tmp_path, ()), {"Origin": "http://localhost:5173"}
    assert client.options("/mcp", headers=own | ASKING).status_code == 401
    served = client.get("/mcp", headers=own | WITH_TOKEN)
    assert (served.status_code, told(served)) == (200, {})


def test_only_a_preflight_is_answered_without_a_token(tmp_path: Path) -> None:
    client = make_client(tmp_path)
    assert client.options("/mcp", headers=PAGE).status_code == 401
    assert client.post("/mcp", headers=PAGE | ASKING).status_code == 401
    rebound = client.options("/mcp", headers={"Host": "evil.example"} | PAGE | ASKING)
    assert (rebound.status_code, told(rebound)) == (421, {})


def test_two_origins_are_none(tmp_path: Path) -> None:
    headers = [("Origin", PAGE["Origin"]), ("Origin", "https://evil.example"), *ASKING.items()]
    answer = make_client(tmp_path).options("/mcp", headers=headers)  # type: ignore[arg-type]
    assert told(answer) == {}


@pytest.mark.parametrize(
    "origin", ["*", "null", "https://*", "https://*.example", "app.example", "https://a.example/x"]
)
def test_a_setting_that_names_no_origin_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ValidationError, match="names no origin"):
        Settings(state_dir=tmp_path, allowed_origins=(origin,))


@pytest.mark.parametrize(
    "origin", ["http://[::1]:*", "vscode-webview://abc-1", "https://a.example:8"]
)
def test_a_setting_names_origins_of_any_scheme(tmp_path: Path, origin: str) -> None:
    assert Settings(state_dir=tmp_path, allowed_origins=(origin,)).allowed_origins == (origin,)
