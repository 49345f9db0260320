"""Hosts as clients write them, made into one form that rules are compared with; pure.

What two programs could read in two ways is refused rather than guessed at: addresses in decimal,
octal, hexadecimal or short forms, zones, user names, control characters.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

import idna

from sandbox.policy.destinations import Host

MAX_HOST = 255
MAX_NAME = 253
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")


class BadHost(ValueError):
    """What was asked for is no host that could be connected to; the text says why."""


def parse_host(text: str) -> Host:
    """Read a host as it stands in a URL: a name, an IPv4 address, or an IPv6 one in brackets.

    Raises:
        BadHost: It is none of these, or could be read in more than one way.
    """
    if not text or len(text) > MAX_HOST:
        raise BadHost("it is empty" if not text else f"it is longer than {MAX_HOST} characters")
    if any(c.isspace() or not c.isprintable() or c in "@%\\/?#" for c in text):
        raise BadHost("it holds characters that no host has")
    if text.startswith("["):
        return _bracketed(text)
    if ":" in text:
        raise BadHost("an IPv6 address stands in brackets")
    name = _ascii(text).removesuffix(".")
    labels = name.split(".")
    if len(name) > MAX_NAME:
        raise BadHost(f"it is longer than {MAX_NAME} characters")
    if _NUMBER.fullmatch(labels[-1]):  # then every program takes it for an address, if for any
        return _dotted(name)
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise BadHost("it is not a host name")
    return Host(name)


def parse_port(text: str) -> int:
    """Read a port: 1 to 65535 in plain digits.

    Raises:
        BadHost: It is something else.
    """
    port = int(text) if text.isascii() and _PORT.fullmatch(text) else 0
    if not 1 <= port <= 65535:
        raise BadHost("its port is not a number from 1 to 65535")
    return port


def parse_authority(text: str, default_port: int | None = None) -> tuple[Host, int]:
    """Read ``host:port``.

    Args:
        default_port: The port when none is given; None refuses that.

    Raises:
        BadHost: It is not a host and a port.
    """
    end = text.rfind("]") if text.startswith("[") else -1
    colon = text.find(":", end + 1)
    if colon < 0:
        if default_port is None:
            raise BadHost("its port is missing")
        return parse_host(text), default_port
    return parse_host(text[:colon]), parse_port(text[colon + 1 :])


def _ascii(text: str) -> str:
    if text.isascii():
        return text.lower()
    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode().lower()
    except (idna.IDNAError, UnicodeError) as exc:
        raise BadHost("it is not an international name that IDNA 2008 knows") from exc


def _bracketed(text: str) -> Host:
    try:
        address = IPv6Address(text[1:-1] if text.endswith("]") else "")
    except ValueError as exc:
        raise BadHost("what stands in brackets is not an IPv6 address") from exc
    return Host(address.compressed, address)


def _dotted(name: str) -> Host:
    try:
        address = IPv4Address(name)  # four decimal numbers without leading zeros
    except ValueError as exc:
        raise BadHost("it is an address in other than four plain decimal numbers") from exc
    return Host(str(address), address)
