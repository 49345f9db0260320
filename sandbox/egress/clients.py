"""What a client says first: which protocol it speaks and where it wants to go.

Nothing is decided here. An :class:`Asked` says what was asked for and how to answer it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import h11

from sandbox.bulkheads.bulkhead import Section
from sandbox.egress import socks
from sandbox.egress.heads import (
    END_OF_HEAD,
    MAX_HEAD,
    BadHead,
    connect_target,
    parse_head,
    plain_target,
)
from sandbox.egress.hosts import BadHost
from sandbox.egress.inbound import Inbound
from sandbox.policy.destinations import Request

MAX_STATUS_LINE = 300
MAX_SOCKS = 512
"""Longer than any message of SOCKS5 is."""


class Asked(Protocol):
    """A request as its protocol puts it."""

    @property
    def request(self) -> Request:
        """Where it is to go."""
        ...

    async def accept(self) -> None:
        """Say that the connection stands; what follows belongs to it."""
        ...

    async def refuse(self, why: str, *, is_denied: bool) -> None:
        """Say in one line that there is no connection; ``is_denied``: by a rule, or by the
        destination.
        """
        ...


@dataclass(frozen=True)
class _Http:
    inbound: Inbound
    request: Request

    async def refuse(self, why: str, *, is_denied: bool) -> None:
        """See :class:`Asked`."""
        await self.inbound.write(refusal(403 if is_denied else 502, why))


class Connect(_Http):
    """HTTP's ``CONNECT host:port``."""

    async def accept(self) -> None:
        """See :class:`Asked`."""
        await self.inbound.write(b"HTTP/1.1 200 Connection established\r\n\r\n")


@dataclass(frozen=True)
class Plain(_Http):
    """A plain HTTP request: the head to be sent there, and the parser of the body that follows."""

    head: h11.Request
    parser: h11.Connection

    async def accept(self) -> None:
        """Nothing is said before the answer itself."""


@dataclass(frozen=True)
class Socks:
    """SOCKS5's CONNECT."""

    inbound: Inbound
    request: Request

    async def accept(self) -> None:
        """See :class:`Asked`."""
        await self.inbound.write(socks.reply(socks.SUCCEEDED))

    async def refuse(self, why: str, *, is_denied: bool) -> None:
        """See :class:`Asked`; the protocol has room for a number only."""
        code = socks.NOT_ALLOWED if is_denied else socks.UNREACHABLE
        await self.inbound.write(socks.reply(code))


def refusal(status: int, why: str) -> bytes:
    """An HTTP answer that says why there is none, in its first line too."""
    line = why.encode("ascii", "backslashreplace").replace(b"\n", b" ")[:MAX_STATUS_LINE]
    body = why.encode("utf-8", "replace") + b"\n"
    return (
        b"HTTP/1.1 %d %s\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: %d\r\n"
        b"Connection: close\r\n\r\n" % (status, line, len(body))
    ) + body


async def read_asked(inbound: Inbound) -> Asked | None:
    """Read what a client asks for.

    Returns:
        The request; None when the client left before it was complete.

    Raises:
        BadHead: It is malformed, or of another protocol; the client has been answered.
        SandboxError: The connection was given up inside, or the link ended.
    """
    if not inbound.kept and not await inbound.more():
        return None
    if inbound.kept[0] == socks.VERSION:
        return await _read_socks(inbound)
    return await _read_http(inbound, None)


async def read_plain(inbound: Inbound, tunnel: Request) -> Plain | None:
    """Read a plain HTTP request inside a tunnel, where it names a path, and Host the host.

    Returns:
        The request; None when the client left before it was complete.

    Raises:
        BadHead: It is malformed, or for another host; the client has been answered.
    """
    asked = await _read_http(inbound, tunnel)
    return asked if isinstance(asked, Plain) else None


async def _read_socks(inbound: Inbound) -> Socks | None:
    try:
        while (length := socks.read_greeting(bytes(inbound.kept[:MAX_SOCKS]))) is None:
            if not await inbound.more():
                return None
        inbound.take(length)
        await inbound.write(socks.GREETED)
        while (found := socks.read_request(bytes(inbound.kept[:MAX_SOCKS]))) is None:
            if not await inbound.more():
                return None
    except socks.BadSocks as exc:
        await inbound.write(exc.answer)
        raise BadHead(f"the SOCKS request is refused: {exc}") from exc
    except BadHost as exc:
        await inbound.write(socks.reply(socks.NOT_ALLOWED))
        raise BadHead(f"the host cannot be used: {exc}") from exc
    host, port, length = found
    inbound.take(length)
    return Socks(inbound, Request(host, port))


async def _read_http(inbound: Inbound, tunnel: Request | None) -> Connect | Plain | None:
    try:
        raw = await _read_head(inbound)
        if raw is None:
            return None
        with Section("the head of a request", inbound.session_id):
            head, parser = parse_head(raw)
            if head.method == b"CONNECT" and tunnel is None:
                return Connect(inbound, connect_target(head))
            request, outgoing = plain_target(head, tunnel)
    except BadHead as exc:
        await inbound.write(refusal(400, exc.reason))
        raise
    return Plain(inbound, request, outgoing, parser)


async def _read_head(inbound: Inbound) -> bytes | None:
    looked = 0
    while (end := inbound.kept.find(END_OF_HEAD, looked)) < 0:
        if len(inbound.kept) > MAX_HEAD:
            raise BadHead(f"the request's head is longer than {MAX_HEAD} bytes")
        if inbound.kept.find(b"\n\n", looked) >= 0:
            raise BadHead("the request has stray line ends, NUL or folded headers")
        looked = max(0, len(inbound.kept) - len(END_OF_HEAD) + 1)
        if not await inbound.more():
            return None
    if end > MAX_HEAD:
        raise BadHead(f"the request's head is longer than {MAX_HEAD} bytes")
    return inbound.take(end + len(END_OF_HEAD))
