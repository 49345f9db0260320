"""Tokens of other principals, made by the command line, used by the official client over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from ..support.calls import greeting
from ..support.served import Served, sandbox

pytestmark = pytest.mark.anyio

READS = {"list_files", "read_file", "stat_file"}


def command(served: Served, *words: str) -> Any:
    """What a command of `sandbox token` prints as JSON."""
    done = sandbox(served.state, "token", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in words else done.stdout


def make(served: Served, principal: str, scopes: str) -> dict[str, Any]:
    return command(served, "create", "--principal", principal, "--scopes", scopes, "--json")


@asynccontextmanager
async def connected(served: Served, token: str, mode: str) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(served.url, http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


@pytest.fixture(params=["2026-07-28", "legacy"])
def era(request: pytest.FixtureRequest) -> str:
    return request.param


def code_of(result: Any) -> str:
    return result.meta["io.sandbox/error"]["code"]


def words(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


async def test_a_token_that_may_read_files_sees_and_calls_only_that(
    clean: Served, era: str
) -> None:
    made = make(clean, f"reader-{era}", "files:read")
    try:
        async with connected(clean, made["token"], era) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == READS
            assert not (await client.call_tool("list_files", {})).is_error
            for tool, arguments in (
                ("execute_code", {"code": "1"}),
                ("write_file", {"path": "f", "content": "x"}),
                ("run_command", {"command": "true"}),
                ("list_sessions", {}),
            ):
                refused = await client.call_tool(tool, arguments)
                assert (refused.is_error, code_of(refused)) == (True, "not_permitted")
    finally:
        await close_sessions_of(clean, f"reader-{era}")


async def test_a_foreign_session_and_a_random_id_are_answered_alike(
    clean: Served, era: str
) -> None:
    token = make(clean, "mallory", "session,execute,files:read")["token"]
    async with clean.http() as http:
        foreign = (await http.post("/mcp/v1/sessions")).json()["session_id"]
    random = foreign[:-6] + "".join(reversed(foreign[-6:])) + "x"
    async with connected(clean, token, era) as client:
        for tool in ("get_session", "list_files", "close_session"):
            first, second = [
                words(await client.call_tool(tool, {"session_id": wanted}))
                for wanted in (foreign, random)
            ]
            assert first.replace(foreign, "ID") == second.replace(random, "ID")


async def test_a_revoked_token_is_refused_at_once_and_its_open_streams_end(clean: Served) -> None:
    made = make(clean, "leaver", "session")
    headers = {"Authorization": f"Bearer {made['token']}"}
    async with httpx2.AsyncClient(base_url=clean.base, headers=headers, timeout=60) as http:
        hello = greeting("2025-11-25")
        accept = {"Accept": "application/json, text/event-stream"}
        greeted = await http.post("/mcp/v1", json=hello, headers=accept)
        held = {"Mcp-Session-Id": greeted.headers["mcp-session-id"], **accept}
        async with http.stream("GET", "/mcp/v1", headers=held) as stream:
            assert stream.status_code == 200
            command(clean, "revoke", made["token_id"])
            assert (await http.get("/mcp/v1/sessions")).status_code == 401
            assert (await http.post("/mcp/v1", json=hello, headers=held)).status_code == 401
            with anyio.fail_after(20):
                async for _ in stream.aiter_raw():
                    pass
    async with clean.http() as http:
        assert (await http.get("/mcp/v1/sessions")).status_code == 200, "others go on"


async def close_sessions_of(served: Served, principal: str) -> None:
    """Close what a principal has left, with a token that may."""
    made = make(served, principal, "session")
    headers = {"Authorization": f"Bearer {made['token']}"}
    async with httpx2.AsyncClient(base_url=served.base, headers=headers, timeout=60) as http:
        for info in (await http.get("/mcp/v1/sessions")).json()["sessions"]:
            await http.delete(f"/mcp/v1/sessions/{info['session_id']}")
