"""Whose default session a request means."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from sandbox.errors import InvalidRequest
from sandbox.server.desk import caller_of_request
from sandbox.server.grants import Grant
from sandbox.server.scopes import SCOPES
from sandbox.sessions.models import Caller

LEGACY = {"Mcp-Session-Id": "abc"}


def caller(application: str = "t1", **headers: str) -> Caller:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    grant = Grant("ann", "an agent", application, frozenset(SCOPES))
    return caller_of_request(Request({"type": "http", "headers": raw, "sandbox.grant": grant}))


@pytest.mark.parametrize(
    ("headers", "key", "line"),
    [
        ({}, "", ""),
        ({"Sandbox-Session": "mine"}, "header:mine", ""),
        ({"Sandbox-Session": "mcp:t1 abc", **LEGACY}, "header:mcp:t1 abc", ""),
        (LEGACY, "mcp:t1 abc", "mcp:t1 "),
        ({**LEGACY, "MCP-Protocol-Version": "2025-11-25"}, "mcp:t1 abc", "mcp:t1 "),
        ({**LEGACY, "MCP-Protocol-Version": "2026-07-28"}, "", ""),
    ],
)
def test_the_first_of_name_conversation_and_principal_counts(
    headers: dict[str, str], key: str, line: str
) -> None:
    found = caller(**headers)
    assert (found.default_key, found.line) == (key, line)


def test_the_conversations_of_two_tokens_have_nothing_in_common() -> None:
    one, two = caller("t1", **LEGACY), caller("t12", **LEGACY)
    assert not two.default_key.startswith(one.line)
    assert not one.default_key.startswith(two.line)


def test_a_name_that_is_too_long_is_refused() -> None:
    assert caller(**{"Sandbox-Session": "x" * 193}).default_key
    with pytest.raises(InvalidRequest):
        caller(**{"Sandbox-Session": "x" * 194})
