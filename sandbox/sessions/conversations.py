"""The conversations of clients that shake hands, and which of them give way to a newer one.

Such a client says hello, calls, and says goodbye, or is just not heard of again. Some hold one
conversation as long as they run, others one for each call, and each has a default session. That of
a conversation which is over is left to the next conversation of the same token, as is that of one
which nobody seems to hold any more: two conversations that are held at once keep their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from sandbox.sessions.models import PASSING

QUIET_S = 60.0
"""A conversation of several calls, without an open stream, counts as held for so long after its
last request: whoever makes one for each call would have begun another."""


@dataclass(slots=True, eq=False)
class Conversation:
    """What is known of one of them.

    Args:
        key: The default key of its caller.
        began: Which request of all it began with.
        said: Which request of all was its latest.
    """

    key: str
    began: int
    said: int
    used_at: float
    requests: int = 0
    """That are being served, streams that stay open among them."""
    calls: int = 0
    """That were about a session."""
    taken: str = ""
    """The session that a newer one took over from it, until it is told so."""


class Conversations:
    """The conversations of one controller that are not over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, Conversation] = {}
        self._requests = 0

    def begin(self, key: str) -> Conversation:
        """One has begun."""
        self._requests += 1
        found = Conversation(key, self._requests, self._requests, self._clock())
        self._known[key] = found
        return found

    def end(self, conversation: Conversation) -> None:
        """One is over; harmless when it was already."""
        self._known.pop(conversation.key, None)

    @contextmanager
    def serving(self, conversation: Conversation) -> Generator[None]:
        """Serve a request of it for the time of the block."""
        self._requests += 1
        conversation.said = self._requests
        conversation.requests += 1
        try:
            yield
        finally:
            conversation.requests -= 1
            conversation.used_at = self._clock()

    def called(self, key: str) -> None:
        """A call of it was about a session."""
        if found := self._known.get(key):
            found.calls += 1

    def is_over(self, key: str) -> bool:
        """Whether a default key is that of a conversation which is over."""
        return key.startswith(PASSING) and key not in self._known

    def gives_way(self, key: str, newer: str) -> bool:
        """Whether a conversation is over, or nobody seems to hold it any more since a newer one
        has begun."""
        old, new = self._known.get(key), self._known.get(newer)
        if old is None:
            return self.is_over(key)
        if old.requests or (new is not None and new.began < old.said):
            return False
        return old.calls < 2 or self._clock() >= old.used_at + QUIET_S

    def taken(self, key: str, session_id: str) -> None:
        """Remember for a conversation what was taken over from it."""
        if found := self._known.get(key):
            found.taken = session_id

    def tell_taken(self, key: str) -> str:
        """The session that was taken over from a conversation, told once; empty for none."""
        found = self._known.get(key)
        if found is None:
            return ""
        session_id, found.taken = found.taken, ""
        return session_id
