"""A session's gateway, from the first byte of a connection to what is told of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import pytest

from sandbox.bulkheads.shares import Owner, Shares
from sandbox.egress.wayout import Approval, Question, Seen
from sandbox.errors import InfrastructureError, SandboxError
from sandbox.outputs.redaction import Redactor
from sandbox.policy.network import AllowRule, DenyRule

from ...support.outside import PUBLIC, Outside, policy, server, session

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
        async def ask(self, question: Question) -> Approval:
            questions.append(question)
            return Approval(len(questions) > 1, "a person said no")

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


OVERRIDES = (
    *("X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-HTTP-Method-Override: DELETE"),
    *("X-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Forwarded-Host: other.example"),
    *("Forwarded: host=other.example", "X_Original_URL: /admin"),
)


async def test_where_a_rule_is_about_requests_no_header_names_another_one(outside: Outside) -> None:
    came: list[bytes] = []

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    narrow = AllowRule(domain="narrow.example", http=True, methods=("GET",), paths=("/public/*",))
    wide = AllowRule(domain="wide.example", http=True)
    async with server(page) as port, session(outside, policy(narrow, wide)) as inside:
        outside.place("narrow.example", port, port=80)
        outside.place("wide.example", port, port=80)
        for line in OVERRIDES:
            status, body = await inside.open().get("http://narrow.example/public/x", line)
            assert (status, line.split(":")[0].lower() in body.decode()) == (403, True)
            tunnel = inside.open()
            assert await tunnel.connect("narrow.example:80") == 200
            head = f"GET /public/x HTTP/1.1\r\nHost: narrow.example\r\n{line}\r\n\r\n"
            await tunnel.send(head.encode())
            assert (await tunnel.rest()).startswith(b"HTTP/1.1 403")
        assert came == []
        for line in OVERRIDES:  # no rule is about requests there, so none is deceived
            assert (await inside.open().get("http://wide.example/x", line))[0] == 200
        assert (await inside.open().get("http://narrow.example/public/x", "X-Own: 1"))[0] == 200
    assert len(came) == len(OVERRIDES) + 1


async def test_what_floods_a_connection_in_small_pieces_holds_up_nobody(outside: Outside) -> None:
    worst_s = 0.0

    async def watch() -> None:
        nonlocal worst_s
        while True:
            began = time.thread_time()  # what others take of the machine is not ours
            await asyncio.sleep(0)
            worst_s = max(worst_s, time.thread_time() - began)

    record = b"\x16\x03\x01\0\x01"
    hello = b"\x01\0\x7f\xff" + bytes(20_000)
    floods = (b"".join(record + hello[at : at + 1] for at in range(len(hello))), b"GET /" * 3_000)
    async with session(outside, policy(AllowRule(domain="*.example.com"))) as inside:
        outside.names.answers["api.example.com"] = (PUBLIC,)
        async with server(echo) as port:
            outside.place("api.example.com", port)
            watching = asyncio.create_task(watch())
            for flood in floods:
                client = inside.open()
                if flood.startswith(record):
                    assert await client.connect("api.example.com:443") == 200
                with suppress(SandboxError):
                    for at in range(len(flood)):
                        await client.send(flood[at : at + 1])
                        if at % 64 == 0:
                            await asyncio.sleep(0)
                client.end()
                await client.rest()
            watching.cancel()
    assert worst_s < 0.75
    assert inside.rules == ["built-in: TLS only"]


async def test_a_principals_flood_of_connections_leaves_room_for_others(outside: Outside) -> None:
    outside.egress = replace(outside.egress, places=Shares("connections", 16, 8, 8))
    rules = policy(AllowRule(cidr="93.184.215.0/24"))
    mallory = [Owner("mallory", f"s-{number}") for number in range(3)]
    async with server(echo) as port, AsyncExitStack() as stack:
        outside.place("unused.example", port)
        sessions = [
            await stack.enter_async_context(session(outside, rules, owner=owner))
            for owner in mallory
        ]
        made = [
            await inside.open().connect("93.184.215.14:443")
            for inside in sessions
            for _ in range(8)
        ]
        assert made == [200] * 8 + [403] * 16
        assert sessions[1].rules == ["built-in: share of connections"]
        async with session(outside, rules, owner=Owner("bob", "s-bob")) as honest:
            for _ in range(3):
                assert await honest.open().connect("93.184.215.14:443") == 200
    for _ in range(10):
        await asyncio.sleep(0)
    assert outside.egress.places.taken == 0


async def test_what_is_told_of_a_connection_has_no_secret(outside: Outside) -> None:
    value = "Sk-Zq7Secret"
    redactor = Redactor({"key": value})
    rules = policy(AllowRule(domain="*.allowed.example"))
    async with session(outside, rules, redactor=redactor) as inside:
        assert await inside.open().connect(f"{value}.example:443") == 403
        assert await inside.open().connect(f"{value}.allowed.example:443") == 502
        assert await inside.open().connect(f"{value}_/.example:443") == 400
        await inside.open().get(f"http://{value}.example/")
        await inside.open().get(f"http://e.example/{value}", f"X-{value}-Override: 1")
    told = f"{inside.denials} {outside.seen} {inside.gateway.info()}"
    assert value.lower() not in told.lower()
    assert "[secret key].allowed.example" in told
    assert len(inside.denials) == 5
