"""Who has a session open, whichever of its notebooks they look at: presence without a document.

It is the room that JupyterLab shows its collaborators from. What a peer synchronises there is
empty, and nothing of it is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from sandbox.collaboration.authors import Author
from sandbox.collaboration.peers import (
    EMPTY_UPDATE,
    STEP1,
    Peer,
    awareness_message,
    sync_message,
)
from sandbox.collaboration.presence import Presence
from sandbox.errors import NotPermitted, QuotaExceeded

MAX_PEERS = 64
_NOTHING = b"\0"
"""The state of an empty document."""


class Lobby:
    """The room of one session."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._peers: list[Peer] = []
        self._presence = Presence(self._tell)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is there."""
        return not self._peers

    def join(self, author: Author) -> Peer:
        """Let somebody in, until they leave.

        Raises:
            QuotaExceeded: There are as many as may be.
        """
        if len(self._peers) >= MAX_PEERS:
            raise QuotaExceeded(f"The session is open at {MAX_PEERS} peers, the most there can be.")
        peer = Peer(self, author, may_write=True, clock=self._clock)
        self._peers.append(peer)
        peer.offer(sync_message(STEP1, _NOTHING))
        if others := self._presence.all():
            peer.offer(awareness_message(others))
        return peer

    def update_since(self, state: bytes) -> bytes:
        """Nothing: there is no document."""
        return EMPTY_UPDATE

    async def take_update(self, update: bytes, sender: Peer) -> None:
        """Refuse what a peer writes."""
        raise NotPermitted("There is no document in this room, only who is here.")

    def take_awareness(self, update: bytes, sender: Peer) -> None:
        """Take what a peer says of itself and give it to the others."""
        self._presence.take(update, sender)

    def left(self, peer: Peer) -> None:
        """A peer has left."""
        if peer in self._peers:
            self._peers.remove(peer)
        self._presence.left(peer)

    def _tell(self, awareness: bytes, but: Peer | None) -> None:
        for peer in tuple(self._peers):
            if peer is not but:
                peer.offer(awareness_message(awareness))


class Lobbies:
    """The rooms of those sessions that somebody has open."""

    def __init__(self) -> None:
        self._lobbies: dict[str, Lobby] = {}

    @contextmanager
    def entered(self, session_id: str, author: Author) -> Generator[Peer]:
        """Be in the room of a session for the time of the block."""
        lobby = self._lobbies.setdefault(session_id, Lobby())
        peer = lobby.join(author)
        try:
            yield peer
        finally:
            peer.leave()
            if lobby.is_empty:
                self._lobbies.pop(session_id, None)
