"""A session's gateway, from the first byte of a connection to what is told of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sandbox.egress import Answer, Question, Seen
from sandbox.errors import InfrastructureError
from sandbox.policy.network import AllowRule, DenyRule

from ...outside import PUBLIC, Outside, policy, server, session

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


async def test_a_side_that_says_nothing_is_given_up_once_the_other_has_ended(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()

    monkeypatch.setattr("sandbox.egress.tunnel.HALF_OPEN_S", 0.1)
    async with (
        server(silent) as port,
        session(outside, policy(AllowRule(cidr="93.184.215.0/24"))) as inside,
    ):
        outside.place("unused.example", port)
        client = inside.open()
        assert await client.connect("93.184.215.14:443") == 200
        client.end()
        await client.rest()
        assert client.is_cut
        assert inside.gateway.info().open_connections == 0
        over.set()


async def test_where_nobody_can_be_asked_the_answer_is_no(outside: Outside) -> None:
    async with session(outside, policy(AllowRule(domain="a.example.com", ask=True))) as inside:
        assert await inside.open().connect("a.example.com:443") == 403
    (denial,) = inside.denials
    assert denial.rule == "allow[0] domain a.example.com"
    assert "nobody can be asked" in denial.reason
    assert outside.names.asked == []


async def test_a_person_decides_where_a_rule_wants_it(outside: Outside) -> None:
    questions: list[Question] = []

    class Person:
        async def ask(self, question: Question) -> Answer:
            questions.append(question)
            return Answer(len(questions) > 1, "a person said no")

    outside.egress = replace(outside.egress, approver=Person())
    async with (
        server(echo) as port,
        session(outside, policy(AllowRule(cidr="93.184.215.0/24", ask=True))) as inside,
    ):
        outside.place("unused.example", port)
        assert await inside.open().connect("93.184.215.14:443") == 403
        assert await inside.open().connect("93.184.215.14:443") == 200
    assert questions[0].destination == "93.184.215.14:443"
    assert [denial.reason for denial in inside.denials] == ["a person said no"]


async def test_a_quota_that_is_used_up_ends_a_connection_and_says_so(outside: Outside) -> None:
    outside.egress = replace(outside.egress, charge=lambda who, size: f"{who} has no bytes left")
    async with (
        server(echo) as port,
        session(outside, policy(AllowRule(cidr="93.184.215.0/24"))) as inside,
    ):
        outside.place("unused.example", port)
        client = inside.open()
        assert await client.connect("93.184.215.14:443") == 200
        await client.send(b"x")
        assert await client.rest() == b""
        assert client.is_cut
    (denial,) = inside.denials
    assert (denial.rule, denial.reason) == ("limits.quota", "ada has no bytes left")


async def test_what_cannot_be_put_on_record_is_not_let_out(outside: Outside) -> None:
    class Full:
        def require(self) -> None:
            raise InfrastructureError("The audit log cannot be written.")

        def saw(self, seen: Seen) -> None:
            """Nothing can be kept."""

    outside.egress = replace(outside.egress, record=Full())
    async with session(outside, policy(AllowRule(cidr="93.184.215.0/24"))) as inside:
        assert await inside.open().connect("93.184.215.14:443") == 403
    assert inside.rules == ["built-in: on record"]
    assert outside.roads.dialled == []


async def test_a_destination_that_is_down_is_told_with_its_reason(outside: Outside) -> None:
    async with session(outside, policy(AllowRule(domain="*.example.com"))) as inside:
        outside.names.answers["down.example.com"] = (PUBLIC,)
        assert await inside.open().connect("down.example.com:443") == 502
        client = inside.open()
        assert await client.connect("absent.example.com:443") == 502
        assert b"does not resolve" in await client.rest()
    assert inside.rules == ["unreachable", "unreachable"]
    assert "connection refused" in inside.denials[0].reason


async def test_streams_for_anything_else_are_refused(outside: Outside) -> None:
    async with session(outside, policy()) as inside:
        for op in ("process.run", "", "EGRESS"):
            client = inside.open(op=op)
            assert await client.rest() == b""
            assert client.is_cut
    assert inside.denials == ()
