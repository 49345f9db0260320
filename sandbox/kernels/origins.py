"""Who has asked a kernel what: the header of each client's request, by the id that the kernel sees.

A client chooses the id of its message, so it cannot name an execution or be told apart from
another's; the kernel sees one of ours instead, and what it answers gets the client's header back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_REMEMBERED = 2048
"""Requests of one kernel's clients. Of older ones, outputs that come late are told as nobody's."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A request of one client."""

    client: str
    """Tells the client from all others; no other is given the replies."""
    header: Mapping[str, Any]
    """As the client sent it."""


class Origins:
    """Of one kernel, the latest requests."""

    def __init__(self) -> None:
        self._origins: OrderedDict[str, Origin] = OrderedDict()

    def note(self, msg_id: str, origin: Origin) -> None:
        """Remember whose a request is."""
        self._origins[msg_id] = origin
        if len(self._origins) > MAX_REMEMBERED:
            self._origins.popitem(last=False)

    def get(self, msg_id: str) -> Origin | None:
        """Whose a request is; None when it is no client's, or is forgotten."""
        return self._origins.get(msg_id)
