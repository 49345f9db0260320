"""The gate: Host, Origin and token, and where the token is kept."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from sandbox.config import Settings
from sandbox.errors import ConfigError
from sandbox.server.auth import Gate, security_settings
from sandbox.server.localtoken import (
    LocalToken,
    local_verifier,
    read_token,
    rotate_token,
    server_token,
)

TOKEN = "0123456789abcdef0123"


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    grant = scope.get("sandbox.grant")
    await PlainTextResponse(grant.principal if grant else "nobody")(scope, receive, send)


def make_client(tmp_path: Path, **settings: Any) -> TestClient:
    known = Settings(state_dir=tmp_path, **settings)
    gate = Gate(behind, LocalToken(TOKEN), security_settings(known), lambda *_: None)
    return TestClient(gate, base_url="http://127.0.0.1:8000")


def test_the_token_makes_its_bearer_the_local_principal(tmp_path: Path) -> None:
    answer = make_client(tmp_path).get("/mcp/v1", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer.text) == (200, "local")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        TOKEN,
        "Bearer " + "x" * 100_000,
    ],
)
@pytest.mark.parametrize(
    "path", ["/mcp", "/mcp/", "/mcp/v1", "/mcp/v1/", "/mcp/v1/sessions", "/mcp/v1/x/files/y"]
)
def test_no_or_a_wrong_token_is_refused_everywhere(
    tmp_path: Path, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = make_client(tmp_path).get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "x.example:8000", "127.0.0.1.evil.example", ""])
def test_a_rebound_host_is_refused_even_with_the_token(tmp_path: Path, host: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": host}
    assert make_client(tmp_path).get("/mcp/v1", headers=headers).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_a_page_of_another_origin_is_refused_even_with_the_token(
    tmp_path: Path, origin: str
) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": origin}
    assert make_client(tmp_path).get("/mcp/v1", headers=headers).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "localhost", "[::1]:8000"])
def test_loopback_names_are_served(tmp_path: Path, host: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": host, "Origin": f"http://{host}"}
    assert make_client(tmp_path).get("/mcp/v1", headers=headers).status_code == 200


def test_only_the_hosts_of_the_settings_are_served_when_there_are_some(tmp_path: Path) -> None:
    client = make_client(tmp_path, allowed_hosts=("box.example:8000",))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/mcp/v1", headers=headers | {"Host": "box.example:8000"}).status_code == 200
    assert client.get("/mcp/v1", headers=headers | {"Host": "127.0.0.1:8000"}).status_code == 421


def test_health_needs_no_token(tmp_path: Path) -> None:
    assert make_client(tmp_path).get("/healthz").text == "nobody"


@pytest.mark.parametrize(
    "path",
    [
        "/mcp%0A",
        "/mcp//",
        "/mcp//v1",
        "/mcp%2F",
        "/mcpx",
        "/mcp/v1%0A",
        "/mcp/v10",
        "/mcp/v1%2Fsessions",
        "/mcp/v1//",
    ],
)
def test_no_spelling_of_the_path_gets_past_the_gate(tmp_path: Path, path: str) -> None:
    assert make_client(tmp_path).get(path).status_code == 401


def test_websockets_are_refused(tmp_path: Path) -> None:
    client = make_client(tmp_path)
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/mcp/v1"):
        pass


def test_the_token_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    token = server_token(settings, tmp_path)
    assert len(token) >= 40
    assert server_token(settings, tmp_path) == token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_what_a_killed_first_start_left_does_not_stop_the_next(tmp_path: Path) -> None:
    """In a container each start has the same number of a process."""
    (tmp_path / f"token.{os.getpid()}").touch(mode=0o600)
    token = server_token(Settings(state_dir=tmp_path), tmp_path)
    assert read_token(tmp_path / "token") == token


def test_a_token_that_cannot_be_kept_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ConfigError, match="No space"):
        server_token(Settings(state_dir=tmp_path), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_token_of_the_settings_is_not_written_down(tmp_path: Path) -> None:
    assert server_token(Settings(state_dir=tmp_path, token=TOKEN), tmp_path) == TOKEN
    assert not list(tmp_path.iterdir())


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="Others"):
        read_token(path)


@pytest.mark.parametrize("content", [b"", b"short", "tökentökentöken".encode()])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_token(path)


@pytest.mark.anyio
async def test_a_new_local_token_counts_at_once_and_the_old_one_no_more(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    old = server_token(settings, tmp_path)
    verifier = local_verifier(settings, tmp_path)
    assert await verifier.grant(old)
    new = rotate_token(settings, tmp_path)
    assert await verifier.grant(old) is None
    assert await verifier.grant(new)
    (tmp_path / "token").unlink()
    assert await verifier.grant(new) is None


def test_a_token_that_cannot_be_checked_is_not_accepted(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    token = server_token(settings, tmp_path)
    (tmp_path / "token").chmod(0o644)
    gate = Gate(
        behind, local_verifier(settings, tmp_path), security_settings(settings), lambda *_: None
    )
    client = TestClient(gate, base_url="http://127.0.0.1:8000")
    answer = client.get("/mcp/v1", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 503
    assert str(tmp_path) not in answer.text
