"""Who is in a document, as JupyterLab shows it: names, colours, cursors.

Each peer speaks for the client ids that it was the first to use, and for no others: what it says in
another's name is passed over. Who it is, it does not say itself: the name that others see is its
author's. Agents have an id each while they use the notebook.

https://github.com/yjs/y-protocols/blob/master/awareness.js
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from sandbox.collaboration.authors import Author
from sandbox.collaboration.peers import Peer
from sandbox.collaboration.varints import Malformed, Reader, varint
from sandbox.errors import InvalidRequest, QuotaExceeded

MAX_CLIENTS_OF_ONE = 8
MAX_STATE_BYTES = 16 * 1024
"""Of one client."""
MAX_CLOCK = 2**53 - 2
"""There is one more then, which says that it has left, and which browsers can read."""
_NOBODY = "null"
_COLOR = re.compile(r"[#\w(), .%-]{1,60}", re.ASCII)


@dataclass(slots=True)
class _Client:
    clock: int
    state: str
    """JSON; ``null`` of one who has left."""
    author: Author
    peer: Peer | None
    """None of an agent."""


class Presence:
    """The states of all who are in a document.

    Args:
        tell: Given each change, for all peers but one.
    """

    def __init__(self, tell: Callable[[bytes, Peer | None], None]) -> None:
        self._tell = tell
        self._clients: dict[int, _Client] = {}
        self._agents: dict[str, int] = {}

    @property
    def states(self) -> dict[int, str]:
        """What each client says of itself, as JSON."""
        return {
            client: each.state for client, each in self._clients.items() if each.state != _NOBODY
        }

    @property
    def agents(self) -> tuple[Author, ...]:
        """The agents that use the notebook."""
        return tuple(self._clients[client].author for client in self._agents.values())

    def all(self) -> bytes:
        """What one who comes is told of the others; empty when there are none."""
        return self._encoded(self.states) if self.states else b""

    # --- agents

    def enter(self, author: Author) -> None:
        """Show an agent, unless it is shown already."""
        if author.key in self._agents:
            return
        client = secrets.randbelow(2**31) + 2**31
        self._agents[author.key] = client
        name = author.name[:80] or "agent"
        user = _user(f"agent-{client:x}", name)
        state = json.dumps({"user": user, "agent": author.is_agent}, separators=(",", ":"))
        self._clients[client] = _Client(1, state, author, None)
        self._tell(self._encoded([client]), None)

    def leave(self, key: str) -> None:
        """Show an agent no more; harmless when it is not shown."""
        if (client := self._agents.pop(key, None)) is not None:
            self._gone([client])

    # --- peers

    def take(self, update: bytes, peer: Peer) -> None:
        """Take what a peer says, and tell the others.

        Raises:
            InvalidRequest: It is malformed; nothing of it was taken.
            QuotaExceeded: It is too much, or too often.
        """
        try:
            said = _read(update)
        except Malformed as exc:
            raise InvalidRequest(f"The awareness message is malformed: {exc}.") from exc
        mine = [entry for entry in said if self._is_for(entry[0], peer)]
        new = {client for client, _, _ in mine} - peer.clients
        if len(peer.clients) + len(new) > MAX_CLIENTS_OF_ONE:
            raise QuotaExceeded(f"A peer speaks for at most {MAX_CLIENTS_OF_ONE} clients.")
        changed: list[int] = []
        for client, clock, state in mine:
            known = self._clients.get(client)
            if known is not None and (
                clock < known.clock or (clock == known.clock and state != _NOBODY)
            ):
                continue
            peer.clients.add(client)
            shown = state if state == _NOBODY else _signed(state, peer.author)
            self._clients[client] = _Client(clock, shown, peer.author, peer)
            changed.append(client)
        if changed:
            self._tell(self._encoded(changed), peer)

    def left(self, peer: Peer) -> None:
        """A peer is no longer there, and none that it spoke for."""
        clients = [(client, self._clients.get(client)) for client in peer.clients]
        self._gone([client for client, known in clients if known and known.peer is peer])

    # --- inside

    def _is_for(self, client: int, peer: Peer) -> bool:
        known = self._clients.get(client)
        if known is None or known.peer is peer:
            return True
        # One who comes again before the connection is noticed to be lost that it had.
        return known.peer is not None and known.author.key == peer.author.key

    def _gone(self, clients: list[int]) -> None:
        if not clients:
            return
        for client in clients:
            known = self._clients[client]
            known.clock, known.state = known.clock + 1, _NOBODY
        told = self._encoded(clients)
        for client in clients:
            del self._clients[client]
        self._tell(told, None)

    def _encoded(self, clients: Iterable[int]) -> bytes:
        chosen = list(clients)
        made = bytearray(varint(len(chosen)))
        for client in chosen:
            known = self._clients[client]
            state = known.state.encode()
            made += varint(client) + varint(known.clock) + varint(len(state)) + state
        return bytes(made)


def _user(username: str, name: str, color: object = None) -> dict[str, str]:
    """Somebody, as JupyterLab shows them."""
    digest = hashlib.sha256(name.encode("utf-8", "replace")).digest()
    is_color = isinstance(color, str) and _COLOR.fullmatch(color)
    return {
        "username": username,
        "name": name,
        "display_name": name,
        "initials": "".join(word[0] for word in name.split()[:2]).upper(),
        "color": str(color) if is_color else f"var(--jp-collaborator-color{digest[0] % 7 + 1})",
    }


def _signed(state: str, author: Author) -> str:
    """What a client says, in the name of whoever it is, and of nobody else."""
    said: dict[str, Any] = json.loads(state)
    claimed = said.pop("user", None)
    said.pop("agent", None)
    color = cast("dict[str, Any]", claimed).get("color") if isinstance(claimed, dict) else None
    name = author.name[:80]
    return json.dumps({**said, "user": _user(name, name, color)}, separators=(",", ":"))


def _read(update: bytes) -> list[tuple[int, int, str]]:
    reader = Reader(update)
    said: list[tuple[int, int, str]] = []
    for _ in range(reader.varint()):
        client, clock, state = reader.varint(), reader.varint(), reader.text()
        if clock > MAX_CLOCK:
            raise Malformed("a clock of it is too late")
        if len(state) > MAX_STATE_BYTES:
            raise QuotaExceeded(f"A client's state has at most {MAX_STATE_BYTES:,} bytes.")
        said.append((client, clock, _checked(state)))
    if not reader.is_at_end:
        raise Malformed("it goes on behind its end")
    return said


def _checked(state: str) -> str:
    try:
        found: Any = json.loads(state)
        # What a browser cannot read, such as NaN, would end the awareness of all others.
        json.dumps({"user": {}, "said": found}, allow_nan=False)
    except (ValueError, RecursionError):
        raise Malformed("a state of it is no JSON") from None
    if found is not None and not isinstance(found, dict):
        raise Malformed("a state of it is no object")
    return state if found is not None else _NOBODY
