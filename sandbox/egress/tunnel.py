"""A tunnel: bytes both ways, of which only the first are looked at."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from contextlib import suppress

from sandbox.bulkheads.bulkhead import Section
from sandbox.egress.hosts import BadHost, parse_host
from sandbox.egress.inbound import Inbound
from sandbox.egress.meter import Meter
from sandbox.egress.rules import NetworkRules, Verdict, shadowed_by
from sandbox.egress.tls import ALERT_ACCESS_DENIED, HANDSHAKE, BadHello, ClientHello, HelloReader
from sandbox.link.wire import PIECE_SIZE
from sandbox.policy.destinations import Host, Request
from sandbox.policy.network import AllowRule

HALF_OPEN_S = 60.0
"""For a side from outside that says nothing, once the sandbox's has ended: a program that is gone
looks like one that still listens."""

SERVER_NAME = "built-in: server name"
ENCRYPTED_NAME = "built-in: encrypted server name"
NOT_TLS = "built-in: TLS only"


class Refused(Exception):
    """What a connection carries is not what its rule allows."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


def refusal(rule: str, reason: str, remedy: str = "") -> Refused:
    """That a connection may not go on, as an error to raise."""
    return Refused(Verdict(False, rule, reason, remedy))


async def starts_with_tls(inbound: Inbound) -> bool:
    """Wait for a tunnel's first byte: whether TLS begins with it."""
    return bool(inbound.kept or await inbound.more()) and inbound.kept[0] == HANDSHAKE


async def first_bytes(
    inbound: Inbound, rules: NetworkRules, request: Request, rule: AllowRule
) -> bytes:
    """Wait for what a tunnel begins with, and let it pass if it may.

    A tunnel to a name carries TLS for that name. One to an address may carry anything; if that is
    TLS, it must not name what a deny rule does.

    Raises:
        Refused: It may not; if it is TLS, the client has been sent an alert.
    """
    by_name = rule.is_by_name(request)
    if not await starts_with_tls(inbound):
        if by_name and inbound.kept:
            raise refusal(
                NOT_TLS,
                "the tunnel does not begin with TLS",
                f"Use https://{request.host}/; plain HTTP needs a rule with `http: true`",
            )
        return await inbound.read()
    try:
        if rule.is_about_requests:
            raise refusal(
                f"the methods and paths of {rule}",
                "they cannot be seen within TLS",
                f"Use http://{request.host}/",
            )
        hello = await _hello(inbound)
        if hello is not None:
            _check_hello(hello, rules, request, by_name=by_name)
    except Refused:
        await inbound.write(ALERT_ACCESS_DENIED)
        raise
    return await inbound.read()


async def relay(
    inbound: Inbound, outside: socket.socket, meter: Meter, first: Awaitable[bytes]
) -> None:
    """Move bytes both ways until both sides have ended; the socket stays open.

    Raises:
        SandboxError: The sandbox's side was given up.
        OSError: The other side was.
        OverLimit: The bytes are used up.
        Refused: What goes out first may not.
    """
    loop = asyncio.get_running_loop()
    has_ended = asyncio.Event()
    heard_at = loop.time()

    async def send() -> None:
        data = await first
        while data:
            meter.sent(len(data))
            await loop.sock_sendall(outside, data)
            data = await inbound.read()
        with suppress(OSError):
            outside.shutdown(socket.SHUT_WR)
        has_ended.set()

    async def watch() -> None:
        await has_ended.wait()
        since = loop.time()
        while (left_s := max(heard_at, since) + HALF_OPEN_S - loop.time()) > 0:  # noqa: ASYNC110  # time
            await asyncio.sleep(left_s)
        raise ConnectionAbortedError("the sandbox's side has ended, and the other says nothing")

    async def receive() -> None:
        nonlocal heard_at
        while data := await loop.sock_recv(outside, PIECE_SIZE):
            heard_at = loop.time()
            meter.received(len(data))
            await inbound.write(data)
        inbound.end()

    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch())
            await asyncio.wait([tasks.create_task(send()), tasks.create_task(receive())])
            watching.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _hello(inbound: Inbound) -> ClientHello | None:
    """The tunnel's ClientHello; None when it ended before that was complete."""
    reader, piece = HelloReader(), bytes(inbound.kept)
    while piece:
        try:
            with Section("a greeting of TLS", inbound.session_id):
                hello = reader.feed(piece)
        except BadHello as exc:
            raise refusal(NOT_TLS, str(exc)) from exc
        if hello is not None:
            return hello
        piece = await inbound.more()
    inbound.take(len(inbound.kept))  # half a greeting is sent to nobody
    return None


def _check_hello(
    hello: ClientHello, rules: NetworkRules, request: Request, *, by_name: bool
) -> None:
    if hello.is_encrypted:
        raise refusal(
            ENCRYPTED_NAME,
            "the TLS handshake hides the server's name (ECH), so it cannot be checked",
            "Turn Encrypted Client Hello off in the client",
        )
    if hello.server_name is None:
        if by_name:
            raise refusal(
                SERVER_NAME,
                f"the TLS handshake names no server; it must name {request.host}",
                "Use a client that sends SNI",
            )
        return
    name = _named(hello.server_name)
    if by_name and name != request.host.text:
        shown = name or "something that is no host name"
        raise refusal(
            SERVER_NAME,
            f"the TLS handshake names {shown}, the connection is for {request.host}",
            "Ask for the host that is meant",
        )
    if title := shadowed_by(rules, name, request.port):
        raise refusal(title, f"the TLS handshake names {name}")


def _named(server_name: str) -> str:
    """A server name in the one form of hosts; empty when it is none."""
    try:
        host: Host = parse_host(server_name)
    except BadHost:
        return ""
    # RFC 6066 has no dot at the end; what has one is another name to some servers.
    return host.text if host.address is None and not server_name.endswith(".") else ""
