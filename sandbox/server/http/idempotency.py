"""Requests that may be sent again: one with the same ``Idempotency-Key`` is answered as before.

What is kept is in memory: a restart of the controller forgets it, and then a request that is sent
again is carried out again. The keys of one principal are its own, whichever of its tokens it uses.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from starlette.responses import Response

from sandbox.errors import Conflict, InvalidRequest

HEADER = "idempotency-key"
REPLAYED = "idempotent-replayed"
MAX_KEY = 200
KEPT_S = 24 * 3600.0
MAX_KEYS_PER_PRINCIPAL = 1000
MAX_KEYS = 16_000
MAX_ANSWER_BYTES = 1024 * 1024
MAX_BYTES_PER_PRINCIPAL = 8 * 1024 * 1024
MAX_BYTES = 64 * 1024 * 1024
_ENTRY_BYTES = 512
"""About what an entry takes beside its answer."""

Owned = tuple[str, str]
"""A principal, and a key of its."""


class KeyReused(InvalidRequest):
    """A key was used for another request before."""

    code = "idempotency_key_reused"


class PartlyDone(Conflict):
    """Something of what was asked for was done, and the rest cannot be."""

    code = "partly_done"


@dataclass(slots=True)
class _Entry:
    fingerprint: str
    """Of the request."""
    at: float
    is_over: bool = False
    answer: tuple[int, dict[str, str], bytes] | None = None
    """None while it is under way, and where it is no longer kept."""

    @property
    def size(self) -> int:
        return _ENTRY_BYTES + (len(self.answer[2]) if self.answer else 0)


class Replies:
    """The answers to requests that came with a key, for a day, as far as there is room.

    Where there is too much of one principal, or of all, its oldest answers go first, then its
    oldest keys. The key of an answer that went is refused, so that nothing is done twice.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[Owned, _Entry] = OrderedDict()

    def begin(self, principal: str, key: str, fingerprint: str) -> Response | None:
        """The answer to a request that came before; None for a new one, which is under way now.

        Raises:
            InvalidRequest: The key is none.
            KeyReused: It was used for another request.
            Conflict: The one before is under way, or its answer is no longer kept.
        """
        if not 0 < len(key) <= MAX_KEY or not (key.isascii() and key.isprintable()):
            raise InvalidRequest(
                f"Idempotency-Key must be 1 to {MAX_KEY} visible ASCII characters.",
                remedy="Make one for each thing that is to be done once, such as a UUID.",
            )
        self._forget_old()
        found = self._entries.get((principal, key))
        if found is None:
            self._entries[principal, key] = _Entry(fingerprint, self._clock())
            return None
        if found.fingerprint != fingerprint:
            raise KeyReused(
                "This Idempotency-Key came with another request before.",
                remedy="Use a new key for each thing that is to be done.",
            )
        if not found.is_over:
            raise Conflict(
                "The request with this Idempotency-Key is still under way.",
                remedy="Send it again a little later.",
            )
        if found.answer is None:
            raise Conflict(
                "A request with this Idempotency-Key was carried out, and its answer is not kept.",
                remedy="Look at what it made, or use a new key to do it again.",
            )
        status, headers, body = found.answer
        return Response(body, status, {**headers, REPLAYED: "true"})

    def finish(self, principal: str, key: str, response: Response | None) -> None:
        """Keep the answer; None where there is none and nobody knows what was done."""
        entry = self._entries[principal, key]
        entry.is_over = True
        if response is not None and len(response.body) <= MAX_ANSWER_BYTES:
            headers = {k: v for k, v in response.headers.items() if k != "content-length"}
            entry.answer = response.status_code, headers, bytes(response.body)
        self._make_room(principal)

    def forget(self, principal: str, key: str) -> None:
        """Nothing was done: the key is as good as new."""
        del self._entries[principal, key]

    def _forget_old(self) -> None:
        """Those of more than a day ago: they stand in the order of their coming."""
        oldest = self._clock() - KEPT_S
        while self._entries and (entry := next(iter(self._entries.items())))[1].at <= oldest:
            if not entry[1].is_over:
                return
            del self._entries[entry[0]]

    def _make_room(self, principal: str) -> None:
        own = [(owned, each) for owned, each in self._entries.items() if owned[0] == principal]
        self._shrink(own, MAX_BYTES_PER_PRINCIPAL, MAX_KEYS_PER_PRINCIPAL)
        if len(self._entries) > MAX_KEYS or self.size_bytes > MAX_BYTES:
            self._shrink([*self._entries.items()], MAX_BYTES, MAX_KEYS)

    @property
    def size_bytes(self) -> int:
        """About what all of it takes in memory."""
        return sum(each.size for each in self._entries.values())

    def _shrink(self, entries: Iterable[tuple[Owned, _Entry]], room: int, most: int) -> None:
        ended = [(owned, each) for owned, each in entries if each.is_over]
        for owned, _ in ended[: max(len(ended) - most, 0)]:
            del self._entries[owned]
        size = sum(each.size for _, each in ended)
        for _, each in ended:
            if size <= room:
                return
            size -= each.size - _ENTRY_BYTES
            each.answer = None


def fingerprint_of(method: str, target: str, body: bytes, who: Mapping[str, str]) -> str:
    """What tells a request from others with the same key.

    Args:
        target: Its path and query.
        who: What else of the caller decides what is done.
    """
    parts = (method, target, *(f"{name}={who[name]}" for name in sorted(who)))
    head = "\n".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(head + b"\n\n" + body).hexdigest()
