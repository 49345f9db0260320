"""Who is in a document, as the others see it."""

from __future__ import annotations

import json

import pytest

from sandbox.collaboration.authors import Author
from sandbox.collaboration.document import SharedDocument
from sandbox.collaboration.peers import AWARENESS, Peer, awareness_message
from sandbox.collaboration.varints import Reader, varint
from sandbox.errors import InvalidRequest, QuotaExceeded

from .test_document import document

pytestmark = pytest.mark.anyio

AGENT = Author("agent", "Claude Code")


def said(*entries: tuple[int, int, object]) -> bytes:
    made = varint(len(entries))
    for client, clock, state in entries:
        text = json.dumps(state).encode()
        made += varint(client) + varint(clock) + varint(len(text)) + text
    return awareness_message(made)


async def heard(peer: Peer) -> dict[int, object]:
    while True:
        reader = Reader(await peer.receive())
        if reader.varint() == AWARENESS:
            break
    inner = Reader(reader.last_bytes())
    found: dict[int, object] = {}
    for _ in range(inner.varint()):
        client, _ = inner.varint(), inner.varint()
        found[client] = json.loads(inner.text())
    return found


def peer_of(shared: SharedDocument, key: str) -> Peer:
    return shared.join(Author(key, key, is_agent=False))


async def test_what_a_peer_says_of_itself_reaches_the_others_and_those_who_come_later() -> None:
    shared = document()
    one, other = peer_of(shared, "one"), peer_of(shared, "other")
    await one.send(said((1, 1, {"cursors": [7], "user": {"name": "somebody else"}})))
    for each in (other, peer_of(shared, "late")):
        ((client, state),) = (await heard(each)).items()
        assert isinstance(state, dict)
        assert (client, state["cursors"], state["user"]["name"]) == (1, [7], "one")
    one.leave()
    assert await heard(other) == {1: None}
    assert shared.presence.states == {}


async def test_an_identity_cannot_be_taken_over() -> None:
    shared = document()
    one, eve = peer_of(shared, "one"), peer_of(shared, "eve")
    await one.send(said((1, 1, {"user": {"name": "One"}})))
    before = shared.presence.states
    await eve.send(said((1, 9, {"user": {"name": "Eve"}}), (1, 10, None)))
    assert shared.presence.states == before
    shared.presence.enter(AGENT)
    (client,) = set(shared.presence.states) - {1}
    await eve.send(said((client, 99, None)))
    assert shared.presence.agents == (AGENT,)


async def test_an_agent_is_shown_by_name_while_it_uses_the_notebook() -> None:
    shared = document()
    peer = peer_of(shared, "one")
    shared.presence.enter(AGENT)
    shared.presence.enter(AGENT)
    ((client, state),) = (await heard(peer)).items()
    assert isinstance(state, dict)
    user = state["user"]
    assert (user["name"], user["display_name"], user["initials"]) == (*["Claude Code"] * 2, "CC")
    assert user["color"].startswith("var(--jp-collaborator-color")
    shared.presence.leave(AGENT.key)
    assert await heard(peer) == {client: None}


@pytest.mark.parametrize(
    "payload",
    [b"\x05", b"\x01\x01\x01\x04nope", b"\x01\x01\x01\x01[", b"\x01\x01\x01\x0212", b"\0\0"],
)
async def test_malformed_awareness_is_refused(payload: bytes) -> None:
    shared = document()
    with pytest.raises(InvalidRequest):
        await peer_of(shared, "one").send(awareness_message(payload))
    assert shared.presence.states == {}


@pytest.mark.parametrize("state", ['{"at": NaN}', '{"at": [1e999]}', "[" * 20_000])
async def test_what_no_browser_can_read_reaches_none(state: str) -> None:
    shared = document()
    told = varint(1) + varint(1) + varint(1) + varint(len(state)) + state.encode()
    with pytest.raises((InvalidRequest, QuotaExceeded)):
        await peer_of(shared, "eve").send(awareness_message(told))
    assert shared.presence.states == {}


async def test_a_clock_leaves_room_for_the_one_that_says_that_its_client_has_left() -> None:
    shared = document()
    other, eve = peer_of(shared, "other"), peer_of(shared, "eve")
    with pytest.raises(InvalidRequest):
        await eve.send(said((1, 2**53 - 1, {})))
    await eve.send(said((1, 2**53 - 2, {})))
    assert await heard(other)
    eve.leave()
    assert await heard(other) == {1: None}


async def test_awareness_is_bounded_in_size_number_and_rate() -> None:
    shared = document()
    with pytest.raises(QuotaExceeded):
        await peer_of(shared, "one").send(said((1, 1, {"x": "y" * 20_000})))
    with pytest.raises(QuotaExceeded):
        await peer_of(shared, "two").send(said(*((at, 1, {}) for at in range(20))))
    with pytest.raises(QuotaExceeded, match="times a second"):  # noqa: PT012  # whichever of them it is
        peer = peer_of(shared, "three")
        for clock in range(1000):
            await peer.send(said((7, clock + 1, {})))
    assert set(shared.presence.states) == {7}
