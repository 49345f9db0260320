"""The values that the gateway gives to callers and to the journal."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Literal

from pydantic import ValidationError

from sandbox.errors import InvalidRequest
from sandbox.link.link import printable
from sandbox.outputs.denials import Denial
from sandbox.policy.network import DenyRule
from sandbox.values import Told

MAX_ADDED_RULES = 200


class Tightening(Told):
    """What was taken from a session's network while it lives; it only grows."""

    is_off: bool = False
    """Whether all of it was."""
    deny: tuple[DenyRule, ...] = ()
    """Deny rules beside those of the policy."""

    @classmethod
    def of(cls, network: str, deny: Iterable[str]) -> Tightening:
        """What a caller asks for.

        Args:
            network: ``none`` for all of it; empty for what ``deny`` names.

        Raises:
            InvalidRequest: It asks for nothing, or for what no rule can say.
        """
        wanted = cls(is_off=network == "none", deny=tuple(map(_rule, deny)))
        if wanted == cls():
            raise InvalidRequest(
                "There is nothing to take away.",
                remedy='Give network="none", or names and networks in `deny`.',
            )
        return wanted

    def __str__(self) -> str:
        return ", ".join(["network none"] * self.is_off + [f"deny {rule}" for rule in self.deny])

    def joined(self, other: Tightening) -> Tightening:
        """Both together."""
        return Tightening(
            is_off=self.is_off or other.is_off,
            deny=tuple(dict.fromkeys((*self.deny, *other.deny))),
        )


class NetworkInfo(Told):
    """A session's network as it is now, or was at its end."""

    mode: Literal["none", "gateway"]
    """``none``: nothing can be reached."""
    allow: tuple[str, ...] = ()
    """What may be reached, a line for each rule; all else is denied."""
    deny: tuple[str, ...] = ()
    """What is denied whatever ``allow`` says."""
    is_tightened: bool = False
    """Whether something was taken away since the session was opened."""
    connections: int = 0
    """Connections that were let out, in all; counted by this controller."""
    open_connections: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    denials: tuple[Denial, ...] = ()
    """The latest that were denied or cut."""


def _rule(word: str) -> DenyRule:
    try:
        return DenyRule(cidr=str(ip_network(word, strict=False)))
    except ValueError:
        pass
    try:
        return DenyRule(domain=word.lower())
    except ValidationError as exc:
        raise InvalidRequest(
            f"{printable(word, 80)!r} is neither a name nor an address or network: "
            f"{printable(exc.errors()[0]['msg'], 200)}.",
            remedy="Write `example.com`, `*.example.com` for all below it, or `198.51.100.0/24`.",
        ) from exc
