"""Events of streams that clients who shake hands may have missed, for those who come back for them.

Since 2025-11-25 a stream of theirs begins with an event that has an id and says nothing else, and
how long to wait before one comes back; whoever lost the connection names the last id that it saw
and is told what came after. Each conversation has its own events: an id of another one is an id
of nothing. What is kept is bounded for each conversation, for each principal and in all, and the
oldest goes first.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, JSONRPCMessage, JSONRPCResponse

from sandbox.policy.units import KIB, MIB

RETRY_MS = 1000
"""How long a client is asked to wait before it comes back."""
MAX_EVENTS = 256
"""Of one conversation."""
MAX_MESSAGE_BYTES = MIB
MAX_BYTES_PER_PRINCIPAL = 4 * MIB
MAX_BYTES = 32 * MIB
EVENT_BYTES = KIB
"""What an event counts for besides its message."""


@dataclass(frozen=True, slots=True)
class _Event:
    number: int
    stream_id: str
    message: JSONRPCMessage | None
    size_bytes: int

    @property
    def event_id(self) -> str:
        return f"{self.number:x}"


@dataclass(slots=True, eq=False)
class Replay:
    """The events of one conversation."""

    principal: str
    events: deque[_Event] = field(default_factory=deque[_Event])


class Replays(EventStore):
    """Keeps the latest events of all conversations; the SDK's ``EventStore``.

    The SDK does not say whose a stream is, and its streams are numbered by clients: what is served
    inside :meth:`serving`, and the tasks that begin there, are of one conversation.
    """

    def __init__(
        self, most_per_principal: int = MAX_BYTES_PER_PRINCIPAL, most: int = MAX_BYTES
    ) -> None:
        self._most_per_principal = most_per_principal
        self._most = most
        self._replays: dict[Replay, None] = {}
        self._sizes: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._current: ContextVar[Replay | None] = ContextVar("replay", default=None)

    def begin(self, principal: str) -> Replay:
        """A conversation begins."""
        replay = Replay(principal)
        self._replays[replay] = None
        return replay

    def end(self, replay: Replay) -> None:
        """A conversation is over: nobody comes back for its events."""
        self._replays.pop(replay, None)
        while replay.events:
            self._drop(replay)

    @contextmanager
    def serving(self, replay: Replay) -> Generator[None]:
        """Serve a request of that conversation for the time of the block."""
        token = self._current.set(replay)
        try:
            yield
        finally:
            self._current.reset(token)

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep an event and return its id; None is one that says nothing."""
        number, replay = next(self._numbers), self._current.get()
        message, size_bytes = _bounded(message)
        event = _Event(number, stream_id, message, size_bytes + EVENT_BYTES)
        if replay is not None and replay in self._replays:
            replay.events.append(event)
            self._sizes[replay.principal] += event.size_bytes
            self._make_room(replay)
        return event.event_id

    async def replay_events_after(
        self, last_event_id: str, send_callback: EventCallback
    ) -> str | None:
        """Send again what came after an event on its stream.

        Returns:
            The stream; None when the conversation has no such event, or no longer.
        """
        replay = self._current.get()
        kept = list(replay.events) if replay is not None else []
        seen = next((event for event in kept if event.event_id == last_event_id), None)
        if seen is None:
            return None
        for event in kept:
            is_later = event.number > seen.number and event.stream_id == seen.stream_id
            if is_later and event.message is not None:
                await send_callback(EventMessage(event.message, event.event_id))
        return seen.stream_id

    def _make_room(self, replay: Replay) -> None:
        while len(replay.events) > MAX_EVENTS:
            self._drop(replay)
        while self._sizes[replay.principal] > self._most_per_principal:
            self._drop_oldest(replay.principal)
        while self._sizes.total() > self._most:
            ((largest, _),) = self._sizes.most_common(1)
            self._drop_oldest(largest)

    def _drop_oldest(self, principal: str) -> None:
        own = [each for each in self._replays if each.principal == principal and each.events]
        self._drop(min(own, key=lambda each: each.events[0].number))

    def _drop(self, replay: Replay) -> None:
        self._sizes[replay.principal] -= replay.events.popleft().size_bytes
        if not self._sizes[replay.principal]:
            del self._sizes[replay.principal]


def _bounded(message: JSONRPCMessage | None) -> tuple[JSONRPCMessage | None, int]:
    """A message as it is kept, and its size: an answer that is too large is replaced by one that
    says so, for who comes back waits for one; another message is left out."""
    if message is None:
        return None, 0
    size_bytes = len(message.model_dump_json(by_alias=True, exclude_unset=True))
    if size_bytes <= MAX_MESSAGE_BYTES:
        return message, size_bytes
    if not isinstance(message, JSONRPCResponse):
        return None, 0
    told = (
        f"The answer is too large ({size_bytes:,} bytes) to be kept for who lost the connection. "
        "list_executions and get_execution find what ran."
    )
    error = ErrorData(code=INTERNAL_ERROR, message=told)
    return JSONRPCError(jsonrpc="2.0", id=message.id, error=error), len(told)
