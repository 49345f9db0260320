"""Where a session wants to go, in the one form that rules are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Host:
    """A host in one form: an ASCII name in lower case without a dot at its end, or an address."""

    text: str
    """The name, or the address in its canonical form."""
    address: Address | None = None
    """None for a name."""

    def __str__(self) -> str:
        return f"[{self.text}]" if isinstance(self.address, IPv6Address) else self.text


@dataclass(frozen=True, slots=True)
class Request:
    """Where a client wants to go."""

    host: Host
    port: int
    method: str = ""
    """Of a plain HTTP request; empty for a tunnel, whose inside is not seen."""
    path: str = ""
    """Of a plain HTTP request, without its query."""
    has_port: bool = True
    """Whether the port was written, not implied by ``http://``."""
    override: str = ""
    """The header by which it may name another method, path or host; empty for none."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_http(self) -> bool:
        """Whether it is a plain HTTP request."""
        return bool(self.method)


@dataclass(frozen=True, slots=True)
class Target:
    """A host of a service, as the operator's configuration names it."""

    host: str
    port: int
    is_plain: bool = False
    """Whether plain HTTP is spoken there."""


@dataclass(frozen=True, slots=True)
class Service:
    """What is known of a named service."""

    targets: frozenset[Target] = frozenset()
    problem: str = ""
    """Why its hosts are not known; empty when they are."""


def matches(pattern: str, name: str) -> bool:
    """Whether a name is what a rule names: exactly, or below ``*.``, never the domain behind it."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1
    return name == pattern
