"""The values that the gateway gives to callers and to the journal."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from sandbox.denials import Denial
from sandbox.policy.network import DenyRule

MAX_ADDED_RULES = 200


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Tightening(_Frozen):
    """What was taken from a session's network while it lives; it only grows."""

    is_off: bool = False
    """Whether all of it was."""
    deny: tuple[DenyRule, ...] = ()
    """Deny rules beside those of the policy."""

    def joined(self, other: Tightening) -> Tightening:
        """Both together."""
        return Tightening(
            is_off=self.is_off or other.is_off,
            deny=tuple(dict.fromkeys((*self.deny, *other.deny))),
        )


class NetworkInfo(_Frozen):
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
