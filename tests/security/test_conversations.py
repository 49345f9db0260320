"""Attacks on what a conversation leaves to the next one: another token's, another principal's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import anyio.abc
import pytest

from ..support.rawclient import RawClient
from ..support.served import Served, close_all, sandbox, serve

pytestmark = pytest.mark.anyio

EVERYTHING = "session,execute,terminal,files:read,files:write"
PLANTED = "open('secret.txt', 'w').write('the secret'); x = 'the secret'"


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("served")) as running:
        yield running


def token(controller: Served, principal: str, scopes: str = EVERYTHING) -> Served:
    """The controller as somebody with a new token reaches it."""
    words = ("create", "--principal", principal, "--scopes", scopes, "--json")
    done = sandbox(controller.state, "token", *words)
    assert done.returncode == 0, done.stderr
    return replace(controller, token=json.loads(done.stdout)["token"])


@asynccontextmanager
async def conversation(served: Served) -> AsyncIterator[RawClient]:
    async with served.http() as http:
        client = RawClient(served, http)
        await client.begin()
        yield client


async def left_by(victim: Served) -> str:
    """The session that a conversation of the victim's left behind."""
    async with conversation(victim) as client:
        ran = await client.call("execute_code", code=PLANTED)
        await client.end()
    return ran["structuredContent"]["session_id"]


@pytest.mark.parametrize("principal", ["victim", "mallory"])
async def test_what_a_conversation_left_is_not_taken_over_with_another_token(
    controller: Served, principal: str
) -> None:
    """Invariant 6: not by another application of the same principal, and not by a stranger."""
    victim = token(controller, "victim")
    attacker = token(controller, principal)
    try:
        left = await left_by(victim)
        for _ in range(2):
            async with conversation(attacker) as client:
                ran = await client.call("execute_code", code="print(globals().get('x'))")
                assert ran["structuredContent"]["session_id"] != left
                assert "the secret" not in str(ran)
                assert left not in str(ran)
                await client.end()
        async with conversation(victim) as client:
            assert "the secret" in await client.run("print(x)")
    finally:
        close_all(victim)
        close_all(attacker)


async def test_no_name_of_a_conversation_reaches_what_anothers_token_left(
    controller: Served,
) -> None:
    """Invariant 6: neither the victim's MCP session nor a header that looks like its key."""
    victim, attacker = token(controller, "victim"), token(controller, "victim")
    victims_id = victim.token.split("_")[1]
    try:
        async with conversation(victim) as client:
            ran = await client.call("execute_code", code=PLANTED)
            left = ran["structuredContent"]["session_id"]
            known = client.headers["Mcp-Session-Id"]
            await client.end()
        forged: list[dict[str, str]] = [
            {"Mcp-Session-Id": known},
            {"Mcp-Session-Id": f"{victims_id} {known}"},
            {"Sandbox-Session": f"mcp:{victims_id} {known}"},
        ]
        async with attacker.http() as http:
            for headers in forged:
                opened = await http.post("/mcp/v1/sessions", headers=headers)
                assert opened.json().get("session_id") != left
                hello = RawClient(attacker, http)
                hello.headers |= headers
                answer = await http.post("/mcp/v1", json={"jsonrpc": "2.0"}, headers=hello.headers)
                assert left not in answer.text
    finally:
        close_all(victim)
        close_all(attacker)


async def test_a_token_of_fewer_scopes_gets_no_session_that_one_of_more_left(
    controller: Served,
) -> None:
    """Invariant 6: what may only read files reads none that another application wrote."""
    victim = token(controller, "victim")
    reader = token(controller, "victim", "files:read")
    try:
        await left_by(victim)
        async with conversation(reader) as client:
            read = await client.call("read_file", path="secret.txt")
            assert read["isError"]
            assert "the secret" not in str(read)
    finally:
        close_all(victim)


async def test_of_many_conversations_at_once_one_takes_a_session_over(
    controller: Served,
) -> None:
    """Invariant 7: a session goes on with one conversation, however many ask at once."""
    victim = token(controller, "victim")
    found: list[str] = []
    try:
        left = await left_by(victim)
        async with victim.http() as http:
            clients = [RawClient(victim, http) for _ in range(4)]
            for client in clients:
                await client.begin()

            async def come(client: RawClient) -> None:
                ran = await client.call("execute_code", code="1")
                found.append(ran["structuredContent"]["session_id"])

            async with anyio.create_task_group() as tasks:
                for client in clients:
                    tasks.start_soon(come, client)
        assert found.count(left) == 1
        assert len(set(found)) == len(found)
    finally:
        close_all(victim)


async def test_an_event_of_anothers_stream_is_told_to_nobody_else(controller: Served) -> None:
    """Invariant 6: ids of events are numbers that anybody can guess, and good for nothing."""
    victim = token(controller, "victim")
    try:
        async with conversation(victim) as client, victim.http() as http:
            await client.run(PLANTED)
            for attacker in (victim, token(controller, "victim"), token(controller, "mallory")):
                other = RawClient(attacker, http)
                await other.begin()
                for number in range(1, 20):
                    heard = await replayed(other, attacker, f"{number:x}")
                    assert "the secret" not in heard
                stolen = {**other.headers, "Mcp-Session-Id": client.headers["Mcp-Session-Id"]}
                if attacker is not victim:
                    async with attacker.http() as theirs:
                        answer = await theirs.get(
                            "/mcp/v1", headers={**stolen, "Last-Event-ID": "1"}
                        )
                    assert answer.status_code == 404
    finally:
        close_all(victim)


async def replayed(client: RawClient, served: Served, event_id: str) -> str:
    """What comes when somebody comes back after an event; its own streams stay open."""
    heard: list[str] = []
    headers: dict[str, Any] = {**client.headers, "Last-Event-ID": event_id}
    async with served.http() as http:
        with anyio.move_on_after(0.2):
            async with http.stream("GET", "/mcp/v1", headers=headers) as answer:
                async for text in answer.aiter_text():
                    heard.append(text)
    return "".join(heard)
