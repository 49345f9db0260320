"""Who calls, and what its model is given of a result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from mcp import Client
from mcp_types import Implementation

from sandbox.config.settings import ClientProfile
from sandbox.server.desk import Desk
from sandbox.server.hosts import HOSTS, RESULT_LIMIT_META, Shaping, host_of
from sandbox.server.mcpserver import mcp_server
from sandbox.sessions.manager import SessionManager

from .conftest import words

pytestmark = pytest.mark.anyio

CLIENTS = Path(__file__).parents[3] / "docs/clients.md"
ERAS = ("legacy", "2026-07-28")


@pytest.mark.parametrize(
    ("client", "host"),
    [
        ("claude-code", "claude-code"),
        ("claude-ai", "claude"),
        ("claude-ai (via mcp-remote 0.1.37)", "claude"),
        ("Visual Studio Code", "vscode"),
        ("Visual-Studio-Code - Insiders", "vscode"),
        ("cursor-vscode", "cursor"),
        ("gemini-cli-mcp-client", "gemini"),
        ("codex-mcp-client", "codex"),
        ("ChatGPT", "chatgpt"),
        ("openai-mcp", "chatgpt"),
        ("github-copilot-developer", "copilot-cli"),
        ("mcp-inspector", "inspector"),
        ("", "unknown"),
        ("somebody else", "unknown"),
        ("x" * 100_000 + "claude", "unknown"),
    ],
)
def test_a_host_is_known_by_the_name_of_its_client(client: str, host: str) -> None:
    assert host_of(client).name == host


def test_the_setting_names_the_hosts_of_the_table() -> None:
    assert set(get_args(ClientProfile)) == {"", *(host.name for host in HOSTS)}


def test_each_host_has_its_row_in_the_docs() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", CLIENTS.read_text(), re.MULTILINE)
    assert rows == [host.name for host in HOSTS]


@pytest.mark.parametrize("era", ERAS)
async def test_a_host_that_shows_structure_instead_of_content_gets_none(
    desk: Desk, era: str
) -> None:
    info = Implementation(name="claude-code", version="2.1")
    async with Client(mcp_server(desk), mode=era, client_info=info) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        result = await client.call_tool("execute_code", {"code": "40 + 2"})
        failed = await client.call_tool("execute_code", {"code": 'raise ValueError("no")'})
    assert {tool.output_schema for tool in tools.values()} == {None}
    assert (tools["read_file"].meta or {})[RESULT_LIMIT_META] >= 450_000
    assert result.structured_content is None
    assert words(result).startswith("42\n[ok after")
    assert failed.is_error
    assert "[error after" in words(failed)


@pytest.mark.parametrize("era", ERAS)
async def test_another_host_gets_both(desk: Desk, era: str) -> None:
    info = Implementation(name="cursor-vscode", version="1")
    async with Client(mcp_server(desk), mode=era, client_info=info) as client:
        tools = (await client.list_tools()).tools
        result = await client.call_tool("execute_code", {"code": "40 + 2"})
    assert all(tool.output_schema for tool in tools)
    assert not any(tool.meta for tool in tools)
    assert result.structured_content is not None
    assert result.structured_content["text"] == "42"


async def test_a_setting_overrides_what_the_client_says(manager: SessionManager) -> None:
    desk = Desk(manager, Shaping(profile="unknown"))
    info = Implementation(name="claude-code", version="2.1")
    async with Client(mcp_server(desk), client_info=info) as client:
        result = await client.call_tool("execute_code", {"code": "40 + 2"})
    assert result.structured_content is not None


async def test_a_failure_is_as_short_as_its_host_takes_it(desk: Desk) -> None:
    code = 'print("x" * 30_000)\nraise ValueError("no")'
    told: list[int] = []
    for name in ("claude-code", "else"):
        info = Implementation(name=name, version="1")
        async with Client(mcp_server(desk), client_info=info) as client:
            result = await client.call_tool("execute_code", {"code": code})
            assert "ValueError" in words(result)
            told.append(len(words(result)))
    assert told[0] < 11_000 < 30_000 < told[1]


@pytest.mark.parametrize(("name", "is_told"), [("claude-code", False), ("else", True)])
async def test_nobody_is_told_of_a_structured_result_that_is_not_sent(
    desk: Desk, name: str, is_told: bool
) -> None:
    info = Implementation(name=name, version="1")
    async with Client(mcp_server(desk), client_info=info) as client:
        given = {"path": "b", "content": "AAEC", "encoding": "base64"}
        await client.call_tool("write_file", given)
        result = await client.call_tool("read_file", {"path": "b"})
    assert ("structured result" in words(result)) == is_told
    assert (result.structured_content is not None) == is_told
