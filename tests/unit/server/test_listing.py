"""The list of tools: what it costs, and what of it a server and a token offer."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import INVALID_PARAMS

from benchmarks.tokens import (
    BUT_NOTEBOOKS,
    MAX_INPUTS,
    MAX_NOTEBOOK_INPUTS,
    MAX_TOKENS,
    cost,
    largest,
    tool_lists,
)
from sandbox.server.application import make_app
from sandbox.server.desk import Desk
from sandbox.server.grants import LOCAL_GRANT, Grant
from sandbox.server.listing import INSTRUCTIONS, instructions, naming_only
from sandbox.server.mcpserver import mcp_server
from sandbox.server.oauth import ProtectedResource
from sandbox.sessions.manager import SessionManager
from sandbox.testing import FakeEngine
from sandbox.toolsets import ALL, TOOLS, TOOLSETS, tools_of

from ...support.applications import started

pytestmark = pytest.mark.anyio

WORD = re.compile(r"\w+")


def named_in(text: str) -> set[str]:
    """The tools that a text names."""
    return TOOLS.intersection(WORD.findall(text))


async def test_the_list_costs_a_model_no_more_than_its_budget() -> None:
    lists = await tool_lists()
    for name, most in ((BUT_NOTEBOOKS, MAX_INPUTS), ("notebooks", MAX_NOTEBOOK_INPUTS)):
        assert cost(lists[name]).inputs <= most, f"the largest: {largest(lists[name], 10)}"
    assert set(MAX_TOKENS) == set(lists)
    for name, tools in lists.items():
        found = cost(tools)
        assert found.total <= MAX_TOKENS[name], f"{name} costs {found}: {largest(tools, 10)}"


async def test_every_tool_is_in_a_toolset(desk: Desk) -> None:
    async with Client(mcp_server(desk)) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS


@pytest.mark.parametrize("name", TOOLSETS)
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_what_is_not_offered_is_neither_listed_nor_named_nor_callable(
    desk: Desk, engine: FakeEngine, name: str, mode: Any
) -> None:
    async with Client(mcp_server(desk, [name]), mode=mode) as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools if tool.name in TOOLSETS[name]] == [
            tool.name for tool in tools
        ]
        assert {tool.name for tool in tools} == set(TOOLSETS[name])
        for tool in tools:
            told = f"{tool.description} {tool.input_schema} {tool.output_schema}"
            assert named_in(told) <= set(TOOLSETS[name]), tool.name
        assert client.instructions is not None
        assert named_in(client.instructions) <= set(TOOLSETS[name])
        for absent in TOOLS - set(TOOLSETS[name]):
            with pytest.raises(MCPError) as refused:
                await client.call_tool(absent, {})
            told = refused.value
            assert (told.code, told.message) == (INVALID_PARAMS, f"Unknown tool: {absent}")
    assert not engine.containers, "nothing has run"


async def test_of_tools_that_answer_the_same_the_first_that_is_offered_tells_how() -> None:
    lists = await tool_lists()
    every = {tool["name"]: tool["outputSchema"] for tool in lists[ALL]}
    code = {tool["name"]: tool["outputSchema"] for tool in lists["code"]}
    assert every["start_kernel"]["properties"]
    assert every["restart_kernel"]["description"] == "As start_kernel answers."
    assert code["interrupt_kernel"]["properties"] == every["start_kernel"]["properties"]
    assert code["restart_kernel"]["description"] == "As interrupt_kernel answers."


async def test_a_sentence_that_names_an_absent_tool_is_left_out() -> None:
    text = "Use run_command. After that `x` it stops: stop_command ends it. Nothing else."
    assert naming_only(text, TOOLS) == text
    assert naming_only(text, frozenset({"run_command"})) == "Use run_command. Nothing else."
    assert instructions(TOOLS) == INSTRUCTIONS
    assert "execute_code" not in instructions(tools_of(["files"]))
    assert "session_id" in instructions(tools_of(["files"]))


class Tokens:
    """Knows the tokens that a test gave out."""

    def __init__(self) -> None:
        self.known: dict[str, Grant] = {}

    async def grant(self, token: str) -> Grant | None:
        return self.known.get(token)


@asynccontextmanager
async def served(
    desk: Desk, manager: SessionManager, grant: Grant, toolsets: tuple[str, ...]
) -> AsyncIterator[httpx2.AsyncClient]:
    """A server that offers some tools, called over HTTP with a token."""
    tokens = Tokens()
    tokens.known["t"] = grant
    app = make_app(
        desk,
        verifier=tokens,
        security=TransportSecuritySettings(allowed_hosts=["test"], allowed_origins=[]),
        check=manager.runtime.engine,
        resource=ProtectedResource("https://test/mcp/v1", "https://login.example"),
        toolsets=toolsets,
    )
    async with (
        started(app),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app),
            base_url="http://test",
            headers={"Authorization": "Bearer t"},
        ) as http,
    ):
        yield http


@pytest.mark.parametrize(
    ("of_server", "of_token", "scopes", "there"),
    [
        ((ALL,), ("code",), None, TOOLSETS["code"]),
        (("code", "files"), None, None, (*TOOLSETS["code"], *TOOLSETS["files"])),
        (("code", "files"), ("files", "terminals"), None, TOOLSETS["files"]),
        (("code",), ("terminals",), None, ()),
        ((ALL,), ("files",), {"files:read"}, ("list_files", "read_file", "stat_file")),
        ((ALL,), ("read_file",), None, ("read_file",)),
        (("files",), None, {"files:read"}, ("list_files", "read_file", "stat_file")),
    ],
)
async def test_a_token_narrows_what_the_server_offers_and_widens_nothing(
    desk: Desk,
    manager: SessionManager,
    of_server: tuple[str, ...],
    of_token: tuple[str, ...] | None,
    scopes: set[str] | None,
    there: tuple[str, ...],
) -> None:
    allowed = frozenset(scopes or LOCAL_GRANT.scopes)
    # Foreign: it could get more scopes, of which it must not be told for what is not there.
    grant = replace(LOCAL_GRANT, toolsets=of_token, scopes=allowed, is_foreign=True)
    async with served(desk, manager, grant, of_server) as http:
        transport = streamable_http_client("http://test/mcp/v1", http_client=http)
        async with Client(transport, mode="2026-07-28") as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == set(there)
            assert named_in(client.instructions or "") <= set(there)
            with pytest.raises(MCPError) as refused:
                await client.call_tool("open_terminal", {})
    assert refused.value.message == "Unknown tool: open_terminal"


async def test_rest_asks_for_scopes_alone(desk: Desk, manager: SessionManager) -> None:
    grant = replace(LOCAL_GRANT, toolsets=("code",))
    async with served(desk, manager, grant, ("code",)) as http:
        assert (await http.get("/mcp/v1/sessions")).status_code == 200
