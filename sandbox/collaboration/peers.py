"""Peers of a shared document: who is in it, over whatever carries their messages.

A room is a loop in each direction over a peer::

    peer = document.join(author, may_write=True)
    try:
        # one task: what goes out
        while True:
            await websocket.send(await peer.receive())    # raises PeerCut with the reason
        # another one: what comes in
        async for message in websocket:
            await peer.send(message)                      # raises for what it refuses
    finally:
        peer.leave()

Messages are those of the protocol that JupyterLab's collaboration speaks over a WebSocket: one byte
that says which, 0 for the document's synchronisation and 1 for awareness, and its payload. The
first messages that a peer receives are the document's sync step 1 and what is known of the others.
It answers with a step 2, sends a step 1 of its own and is answered by a step 2, then updates come
and go as they are made. An answer to a step 1 comes after all that the peer sent before is in the
journal: this is how a peer knows that nothing of it can be lost any more.

``send`` raises :class:`sandbox.errors.InvalidRequest` for what is malformed, ``QuotaExceeded`` for
what is too much and ``NotPermitted`` for what a reader may not do. The document is as it was then,
and the peer may go on; a room had better close on the first two, for its client is out of step.

https://github.com/yjs/y-protocols
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import anyio
from pycrdt import merge_updates

from sandbox.collaboration.authors import Author
from sandbox.collaboration.varints import Malformed, Reader, varint
from sandbox.errors import Conflict, InvalidRequest, NotPermitted, QuotaExceeded

SYNC, AWARENESS = 0, 1
STEP1, STEP2, UPDATE = 0, 1, 2
MAX_UPDATE_BYTES = 16 * 1024 * 1024
MAX_AWARENESS_BYTES = 64 * 1024
MAX_STATE_BYTES = 64 * 1024
"""Of a state vector: 4,000 clients and more."""
MAX_WAITING_BYTES = 32 * 1024 * 1024
"""What may wait for a peer beyond its first synchronisation."""
MERGED_AT_ONCE = 200
RATE = 60.0
"""The questions and awareness messages of one peer a second."""
BURST = 120.0
COSTLY_S, REST_FACTOR, LONGEST_REST_S = 0.02, 5.0, 2.0
"""A message that takes longer is followed by none of the same peer for so many times as long."""
EMPTY_UPDATE = b"\x00\x00"


class PeerCut(Conflict):
    """The peer is no longer in the document; the message says why."""

    code = "peer_cut"


class Shared(Protocol):
    """What a peer needs of its document."""

    def update_since(self, state: bytes) -> bytes:
        """What somebody with this state lacks; raises InvalidRequest for one that is none."""
        ...

    async def take_update(self, update: bytes, sender: Peer) -> None:
        """Take a peer's update, have it in the journal and give it to the others."""
        ...

    def take_awareness(self, update: bytes, sender: Peer) -> None:
        """Take what a peer says of itself and give it to the others."""
        ...

    def left(self, peer: Peer) -> None:
        """A peer has left."""
        ...


class Peer:
    """One who is in a document; made by its ``join``."""

    def __init__(
        self, document: Shared, author: Author, *, may_write: bool, clock: Callable[[], float]
    ) -> None:
        self.author = author
        self.may_write = may_write
        self.clients: set[int] = set()
        """The client ids that it speaks for in awareness."""
        self._tokens = BURST
        self._refilled_at = clock()
        self._clock = clock
        self._document = document
        self._waiting: deque[tuple[bool, bytes]] = deque()
        self._waiting_bytes = 0
        self._cut: str | None = None
        self._wake = anyio.Event()
        self._sending = anyio.Lock()

    @property
    def is_in(self) -> bool:
        """Whether it is in the document still."""
        return self._cut is None

    async def receive(self) -> bytes:
        """The next message for it; updates that waited meanwhile come as one.

        Raises:
            PeerCut: It is not in the document any more.
        """
        while not self._waiting:
            if self._cut is not None:
                raise PeerCut(self._cut)
            self._wake = anyio.Event()
            await self._wake.wait()
        is_update, data = self._taken()
        if not is_update:
            return data
        updates = [data]
        while self._waiting and self._waiting[0][0] and len(updates) < MERGED_AT_ONCE:
            updates.append(self._taken()[1])
        merged = updates[0] if len(updates) == 1 else merge_updates(*updates)
        return sync_message(UPDATE, merged)

    def _taken(self) -> tuple[bool, bytes]:
        is_update, data = self._waiting.popleft()
        self._waiting_bytes -= len(data)
        return is_update, data

    async def send(self, message: bytes) -> None:
        """Take a message of it, and do what it says before this returns.

        Raises:
            InvalidRequest: It is malformed; nothing was changed.
            QuotaExceeded: It is too large, or comes too often, or the document would be too large.
            NotPermitted: It would change the document, and the peer may only read it.
            PeerCut: It is not in the document any more.
        """
        if self._cut is not None:
            raise PeerCut(self._cut)
        if len(message) > MAX_UPDATE_BYTES + 16:
            raise QuotaExceeded(
                f"A message has at most {MAX_UPDATE_BYTES:,} bytes, not {len(message):,}."
            )
        try:
            reader = Reader(message)
            kind = reader.varint()
            if kind == AWARENESS:
                if len(message) > MAX_AWARENESS_BYTES:
                    raise QuotaExceeded(f"Awareness has at most {MAX_AWARENESS_BYTES:,} bytes.")
                self._spend()
                self._document.take_awareness(reader.last_bytes(), self)
                return
            if kind != SYNC:
                return  # of some extension, such as a chat: nobody here knows it
            step, payload = reader.varint(), reader.last_bytes()
        except Malformed as exc:
            raise InvalidRequest(f"The message is malformed: {exc}.") from exc
        async with self._sending:  # one after the other, as they came
            began = self._clock()
            await self._take_sync(step, payload)
            if (took_s := self._clock() - began) > COSTLY_S:
                await anyio.sleep(min(took_s * REST_FACTOR, LONGEST_REST_S))

    def _spend(self) -> None:
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._refilled_at) * RATE, BURST)
        self._refilled_at = now
        if self._tokens < 1:
            raise QuotaExceeded(f"A peer may ask, or tell of itself, {RATE:g} times a second.")
        self._tokens -= 1

    async def _take_sync(self, step: int, payload: bytes) -> None:
        if step == STEP1:
            if len(payload) > MAX_STATE_BYTES:
                raise QuotaExceeded(f"A state has at most {MAX_STATE_BYTES:,} bytes.")
            self._spend()
            answer = self._document.update_since(payload)
            self.offer(sync_message(STEP2, answer), is_bounded=False)
        elif step in (STEP2, UPDATE):
            if payload == EMPTY_UPDATE:
                return
            if not self.may_write:
                raise NotPermitted("This peer may read the notebook, not change it.")
            await self._document.take_update(payload, self)
        else:
            raise InvalidRequest(f"There is no synchronisation message {step}.")

    def leave(self, reason: str = "It has left.") -> None:
        """Leave the document, with what is told to whoever waits for a message; harmless when it
        has left already."""
        if self._cut is None:
            self._cut = reason
            self._waiting.clear()
            self._waiting_bytes = 0
            self._document.left(self)
            self._wake.set()

    # --- for its document

    def offer_update(self, update: bytes) -> None:
        """Let an update wait for it."""
        self._put(True, update)

    def offer(self, message: bytes, *, is_bounded: bool = True) -> None:
        """Let a message wait for it."""
        self._put(False, message, is_bounded=is_bounded)

    def _put(self, is_update: bool, data: bytes, *, is_bounded: bool = True) -> None:
        if self._cut is not None:
            return
        if self._waiting_bytes + len(data) > MAX_WAITING_BYTES and (is_bounded or self._waiting):
            self.leave("It was too slow to take what the others did; connect again.")
            return
        self._waiting.append((is_update, data))
        self._waiting_bytes += len(data)
        self._wake.set()


def sync_message(step: int, payload: bytes) -> bytes:
    """A message of the document's synchronisation."""
    return bytes((SYNC, step)) + varint(len(payload)) + payload


def awareness_message(payload: bytes) -> bytes:
    """A message of awareness."""
    return bytes((AWARENESS,)) + varint(len(payload)) + payload
