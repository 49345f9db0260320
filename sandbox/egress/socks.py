"""SOCKS5 as far as the gateway speaks it: CONNECT, without a login; RFC 1928, and it is pure.

Two messages come in, a greeting and a request, each answered before the next is sent.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from sandbox.egress.hosts import BadHost, parse_host
from sandbox.policy.destinations import Host

VERSION = 5
GREETED = b"\x05\x00"
NO_METHOD = b"\x05\xff"

SUCCEEDED, FAILED, NOT_ALLOWED, UNREACHABLE = 0, 1, 2, 4
REFUSED, TIMED_OUT, NO_SUCH_COMMAND = 5, 6, 7

_NO_LOGIN = 0
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4


class BadSocks(ValueError):
    """The bytes are not SOCKS5, or ask for what is not served; with what to send before closing."""

    def __init__(self, message: str, answer: bytes) -> None:
        super().__init__(message)
        self.answer = answer


def reply(code: int) -> bytes:
    """The answer to a request; the bound address is of no meaning here and always empty."""
    return bytes((VERSION, code, 0, _IPV4)) + bytes(6)


def read_greeting(data: bytes) -> int | None:
    """Read the list of methods that a client offers.

    Returns:
        The greeting's length; None while it is not complete.

    Raises:
        BadSocks: It is not SOCKS5, or a login is asked for.
    """
    if data[:1] not in (b"", b"\x05"):
        raise BadSocks("it is not version 5 of SOCKS", NO_METHOD)
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    if _NO_LOGIN not in data[2 : 2 + data[1]]:
        raise BadSocks("there is no login here; offer the method without one", NO_METHOD)
    return 2 + data[1]


def read_request(data: bytes) -> tuple[Host, int, int] | None:
    """Read where a client wants to be connected.

    Returns:
        Host, port and the request's length; None while it is not complete.

    Raises:
        BadSocks: It is malformed, or another command than CONNECT.
        BadHost: It names no host that could be connected to.
    """
    if len(data) < 5:
        return None
    version, command, reserved, kind = data[:4]
    if version != VERSION or reserved != 0:
        raise BadSocks("the request is malformed", reply(FAILED))
    if command != _CONNECT:
        raise BadSocks("only CONNECT is served, not BIND or UDP", reply(NO_SUCH_COMMAND))
    start, size = {_IPV4: (4, 4), _IPV6: (4, 16), _NAME: (5, data[4])}.get(kind, (0, 0))
    if not start:
        raise BadSocks("the request has an address of unknown kind", reply(8))
    end = start + size
    if len(data) < end + 2:
        return None
    raw, port = data[start:end], int.from_bytes(data[end : end + 2], "big")
    if port == 0:
        raise BadHost("its port is not a number from 1 to 65535")
    return _host(kind, raw), port, end + 2


def _host(kind: int, raw: bytes) -> Host:
    if kind == _NAME:
        try:
            return parse_host(raw.decode("ascii"))
        except UnicodeDecodeError as exc:
            raise BadHost("it is not ASCII") from exc
    address = IPv4Address(raw) if kind == _IPV4 else IPv6Address(raw)
    return Host(str(address), address)
