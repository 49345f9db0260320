"""What the gateways of a controller share, and what other parts of it may put there."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sandbox.bulkheads.shares import Shares
from sandbox.egress.dialing import Dialer, Resolver
from sandbox.egress.packagecache import PackageCache
from sandbox.policy.destinations import Address, Service

MIN_CONNECTIONS, MAX_CONNECTIONS = 64, 512


class Services(Protocol):
    """Knows the hosts of named services."""

    async def known(self, names: frozenset[str]) -> Mapping[str, Service]:
        """The services of these names, asked anew when what is known is old."""
        ...

    async def variables(self, names: frozenset[str]) -> Mapping[str, str]:
        """The environment variables by which programs inside find these services."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked before a connection is made."""

    session_id: str
    principal: str
    destination: str
    request: str
    """The method and path of plain HTTP; empty for a tunnel."""
    rule: str


@dataclass(frozen=True, slots=True)
class Approval:
    """What a person answered; if not yes, why, and what to do about it, where anything helps."""

    allowed: bool
    reason: str = ""
    remedy: str = ""


class Approver(Protocol):
    """Asks a person."""

    async def ask(self, question: Question) -> Approval:
        """Ask, and wait for the answer within a bound of its own."""
        ...


class Nobody:
    """An approver where nobody can be asked."""

    async def ask(self, question: Question) -> Approval:
        """See :class:`Approver`: the answer is no."""
        return Approval(
            False,
            "the rule wants a person asked, and nobody can be asked here",
            "Use a client that can ask, or a policy without `ask`",
        )


class SecretSource(Protocol):
    """Holds the secrets that rules name."""

    async def get(self, session_id: str, name: str) -> str | None:
        """The secret's value; None when there is none of that name for that session."""
        ...


class NoSecrets:
    """A source without secrets."""

    async def get(self, session_id: str, name: str) -> str | None:
        """See :class:`SecretSource`: there is none."""
        return None


@dataclass(frozen=True, slots=True)
class Seen:
    """One verdict, for the record."""

    session_id: str
    principal: str
    host: str
    """As text, made safe to show, without the session's secrets."""
    port: int
    """0 when unknown."""
    allowed: bool
    rule: str
    reason: str
    addresses: tuple[Address, ...] = ()
    """Where the host is, as resolved and pinned."""
    policy: str = ""
    policy_digest: str = ""


class Record(Protocol):
    """Keeps what gateways decide."""

    def require(self) -> None:
        """Make sure that a connection can be put on record.

        Raises:
            SandboxError: It cannot, so it must not be made.
        """
        ...

    def saw(self, seen: Seen) -> None:
        """Keep a verdict; never raises."""
        ...


class NoRecord:
    """Keeps nothing."""

    def require(self) -> None:
        """See :class:`Record`."""

    def saw(self, seen: Seen) -> None:
        """See :class:`Record`."""


def shares_of_connections(descriptors: int) -> Shares:
    """The connections that all gateways of a controller make, by the descriptors that it may have.

    Each takes a descriptor, and at most about 0.6 MB of what is under way.
    """
    in_all = max(MIN_CONNECTIONS, min(descriptors // 4, MAX_CONNECTIONS))
    return Shares("connections", in_all, in_all // 4, in_all // 4)


def _no_charge(_principal: str, _size_bytes: int) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class WayOut:
    """What the gateways of a controller share."""

    resolver: Resolver
    dialer: Dialer
    services: Services
    packages: PackageCache | None = None
    """Answers sessions that may use the package index; None: each of them asks it itself."""
    addresses: Mapping[str, Address] = field(default_factory=dict[str, Address])
    """The operator's named addresses, the only way past the built-in deny list."""
    certificates: bytes = b""
    """What sessions with a way out trust, in PEM; empty for what their images do."""
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context
    """For the requests of which the gateway makes TLS: verifies certificates and names."""
    approver: Approver = field(default_factory=Nobody)
    secrets: SecretSource = field(default_factory=NoSecrets)
    charge: Callable[[str, int], str] = _no_charge
    """Called with a principal and the bytes about to pass; says why they may not, or nothing."""
    record: Record = field(default_factory=NoRecord)
    """What it cannot keep is not let out."""
    places: Shares = field(default_factory=lambda: shares_of_connections(1024))
