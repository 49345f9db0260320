"""An agent reads in one line what its session has."""

from __future__ import annotations

import pytest
from mcp import Client

from sandbox.egress.models import NetworkInfo
from sandbox.server.room import MAX_RULES, reach

from .conftest import words

pytestmark = pytest.mark.anyio


async def test_a_session_tells_what_it_has_in_one_line(client: Client) -> None:
    opened = await client.call_tool("open_session", {})
    shown = await client.call_tool("get_session", {})
    room = shown.structured_content["room"]

    assert "\n" not in room
    assert len(room) < 400
    for fact in (
        *("1GiB of memory", "1 CPU;", "/workspace 512MiB", "/tmp 128MiB", "5m for a cell"),
        *("30m idle", "image python", "network: none."),
    ):
        assert fact in room
    assert "in 8h at the latest" in room or "in 7h59m at the latest" in room
    assert opened.structured_content["room"] in words(opened)
    assert room in words(shown)


async def test_a_list_of_sessions_repeats_no_room(client: Client) -> None:
    await client.call_tool("open_session", {})
    listed = await client.call_tool("list_sessions", {})
    assert listed.structured_content["sessions"][0]["room"] == ""


def test_a_network_is_told_in_words() -> None:
    index = "service package-index, port 443"
    named = "domain example.org, port 443, GET"
    many = tuple(f"domain {n}.example.org, port 443" for n in range(MAX_RULES + 1))

    assert reach(NetworkInfo(mode="none")) == "none"
    assert reach(NetworkInfo(mode="gateway", allow=(index,))) == "package index, all else is denied"
    assert reach(NetworkInfo(mode="gateway", allow=(named,))).startswith(named)
    assert "and more" in reach(NetworkInfo(mode="gateway", allow=many))
