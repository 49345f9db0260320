"""A session's gateway, from the first byte of a connection to what is told of it."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.policy.network import AllowRule, DenyRule

from ...outside import Outside, policy, server, session

pytestmark = pytest.mark.anyio


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, to its end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def hello_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request with its own head."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(head), head))
    await writer.drain()


async def test_without_rules_every_destination_is_denied_by_the_policy(outside: Outside) -> None:
    async with session(outside, policy()) as inside:
        assert await inside.open().connect("api.example.com:443") == 403
    assert inside.rules == ["network: none"]
    assert outside.names.asked == []


async def test_a_name_without_a_rule_is_denied_and_never_resolved(outside: Outside) -> None:
    async with session(outside, policy(AllowRule(domain="api.example.com"))) as inside:
        client = inside.open()
        assert await client.connect("secret-data.evil.example:443") == 403
        assert b"no allow rule names secret-data.evil.example:443" in await client.rest()
    assert outside.names.asked == []
    (denial,) = inside.denials
    assert (denial.host, denial.port) == ("secret-data.evil.example", 443)
    assert "domain api.example.com" in denial.remedy


async def test_a_deny_rule_wins_over_an_allow_rule(outside: Outside) -> None:
    rules = policy(
        AllowRule(domain="*.example.com"), deny=(DenyRule(domain="private.example.com"),)
    )
    async with session(outside, rules) as inside:
        assert await inside.open().connect("private.example.com:443") == 403
    assert inside.rules == ["deny[0] domain private.example.com"]


async def test_a_name_resolves_once_and_the_answer_is_what_is_connected_to(
    outside: Outside,
) -> None:
    async with (
        server(hello_page) as port,
        session(outside, policy(AllowRule(domain="files.example.com", http=True))) as inside,
    ):
        outside.place("files.example.com", port, port=80)
        status, body = await inside.open().get("http://files.example.com/a?b=c", "X-Own: 1")
    assert status == 200
    assert body.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"X-Own: 1" in body
    assert outside.names.asked == ["files.example.com"]
    assert [seen.allowed for seen in outside.seen] == [True]
    assert inside.denials == ()


async def test_bytes_pass_both_ways_and_both_ends_are_passed_on(outside: Outside) -> None:
    async with (
        server(echo) as port,
        session(outside, policy(AllowRule(cidr="93.184.215.0/24", ports=(5432,)))) as inside,
    ):
        outside.place("unused.example", port, port=5432)
        client = inside.open()
        assert await client.connect("93.184.215.14:5432") == 200
        sent = b"".join(bytes([i % 251]) * 10_000 for i in range(200))

        async def send() -> None:
            for at in range(0, len(sent), 50_000):
                await client.send(sent[at : at + 50_000])
            client.end()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            assert await client.rest() == sent
        info = inside.gateway.info()
    assert (info.sent_bytes, info.received_bytes) == (len(sent), len(sent))
    assert (info.connections, info.open_connections) == (1, 0)
