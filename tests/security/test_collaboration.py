"""Attacks by those who share a notebook: by its document, its awareness and its file."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.collaboration.authors import Author
from sandbox.collaboration.document import SharedDocument
from sandbox.collaboration.peers import STEP1, UPDATE, PeerCut, awareness_message, sync_message
from sandbox.collaboration.varints import varint
from sandbox.errors import NotPermitted, QuotaExceeded, SandboxError
from sandbox.notebooks import editing
from sandbox.notebooks.models import Cell, Notebook

from ..support.yupdates import CLIENT, HOSTILE, in_root, json_items, structs, text

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
MEMORY_BYTES = 3 * 1024 * 1024 * 1024
"""Of the address space of a process that has tried all of them, with all that it imports."""
TIME_S = 120.0
LARGE = 15 * 1024 * 1024
BOMBS: dict[str, Callable[[], bytes]] = {
    "items": lambda: structs(*[json_items(b"\x7e")] * (LARGE // 10)),
    "arrays": lambda: structs(*[in_root(7, b"\x00")] * (LARGE // 9)),
    "objects": lambda: structs(json_items(*[b"\x76\x00"] * (LARGE // 2))),
    "lists": lambda: structs(json_items(*[b"\x75\x00"] * (LARGE // 2))),
    "list": lambda: structs(json_items(b"\x75" + varint(LARGE) + b"\x7e" * LARGE)),
    "one text": lambda: structs(in_root(4, text("x" * LARGE))),
    "a text in a list": lambda: structs(
        b"\x27\x01" + text("meta") + text("metadata") + b"\x01",
        b"\x27\x00\x05\x00" + text("list") + b"\x00",
        b"\x04\x00\x05\x01" + text("x" * LARGE),
    ),
    "deletions": lambda: b"\0\x01\x05" + varint(LARGE // 2) + b"\x00\x01" * (LARGE // 2),
    "clients": lambda: varint(LARGE // 4) + b"\x00\x05\x00" * (LARGE // 4),
    "deep": lambda: structs(json_items(b"\x75\x01" * (LARGE // 2) + b"\x7e")),
    "deep types": lambda: structs(
        in_root(7, b"\x00"),
        *[b"\x07\x00" + varint(CLIENT) + varint(at) + b"\x00" for at in range(LARGE // 7)],
    ),
}
EVE = Author("eve", "Eve", is_agent=False)
ANNA = Author("anna", "Anna", is_agent=False)


class MemoryStore:
    """The updates of a document, in memory."""

    def __init__(self) -> None:
        self.updates: list[bytes] = []

    def load(self) -> tuple[bytes, ...]:
        return tuple(self.updates)

    def append(self, update: bytes) -> None:
        self.updates.append(update)

    def replace(self, update: bytes) -> None:
        self.updates = [update]


async def filled() -> SharedDocument:
    shared = SharedDocument(MemoryStore())
    await shared.fill(Notebook((Cell("a", "code", "kept"),)))
    return shared


async def attacked() -> None:
    """Try all updates on one document; in a process of its own, as they are meant to end it."""
    shared = await filled()
    for name, update in [*HOSTILE.items(), *((name, made()) for name, made in BOMBS.items())]:
        peer = shared.join(EVE)
        began = time.monotonic()
        try:
            await peer.send(sync_message(UPDATE, update))
        except SandboxError:
            assert shared.read().cells == (Cell("a", "code", "kept"),), name
        shared.read()
        peer.leave()
        took = time.monotonic() - began
        assert took < 20, f"{name} took {took:.1f} s"
    shared.edit(lambda n: editing.insert(n, -1, "code", "goes on"))
    assert [cell.source for cell in shared.read().cells if cell.id == "a"] == ["kept"]
    for cell in shared.read().cells:
        shared.edit(lambda n, cell=cell: editing.delete(n, [cell.id]))
    print("intact")


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def test_no_update_of_a_peer_ends_the_controller_or_breaks_the_document() -> None:
    """Invariant 3: deep updates end the library that applies them, where it is given them."""
    code = f"import anyio; from {__name__} import attacked; anyio.run(attacked)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        timeout=TIME_S,
        preexec_fn=bounded,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert done.stdout.decode().splitlines()[-1] == "intact"


async def test_a_reader_changes_nothing_of_a_notebook() -> None:
    """Invariant 6: a share that was given to read is no way to write."""
    shared = await filled()
    reader = shared.join(EVE, may_write=False)
    before = shared.read()
    with pytest.raises(NotPermitted):
        await reader.send(sync_message(UPDATE, structs(json_items(b"\x7e"))))
    assert shared.read() == before


async def test_nobody_speaks_for_another_peer_or_an_agent() -> None:
    """Invariant 6: an identity in a notebook is of the peer that has it, whatever others say."""
    shared = await filled()
    anna, eve = shared.join(ANNA), shared.join(EVE)
    await anna.send(said(1, 1, {"user": {"name": "Anna"}}))
    shared.presence.enter(Author("agent", "Claude"))
    before = shared.presence.states
    for client in before:
        await eve.send(said(client, 1000, {"user": {"name": "Eve"}}))
        await eve.send(said(client, 1001, None))
    assert shared.presence.states == before


async def test_a_flood_of_awareness_and_of_questions_is_refused() -> None:
    """Invariant 3: what a peer says of itself, or asks, is bounded in size and rate."""
    shared = await filled()
    floods: list[Callable[[int], bytes]] = [
        lambda clock: said(1, clock + 1, {}),
        lambda clock: said(clock, 1, {}),
        lambda _: sync_message(STEP1, b"\0"),
        lambda _: said(1, 1, {"x": "y" * 100_000}),
    ]
    for flood in floods:
        peer = shared.join(EVE)
        for clock in range(2000):
            try:
                await peer.send(flood(clock))
            except QuotaExceeded:
                break
        else:
            pytest.fail("it was never refused")
        peer.leave()
    assert shared.presence.states == {}


async def test_a_peer_that_takes_nothing_is_cut_off_and_slows_nobody() -> None:
    """Invariant 3: what waits for a slow peer is bounded, and the others do not wait for it."""
    shared = await filled()
    slow = shared.join(EVE)
    for at in range(60):
        shared.edit(lambda n, at=at: editing.overwrite(n, "a", f"{at % 10}" * 1_000_000))
    with pytest.raises(PeerCut):
        await slow.receive()
    assert shared.peers == ()


def said(client: int, clock: int, state: object) -> bytes:
    """An awareness message of one client."""
    return awareness_message(b"\x01" + varint(client) + varint(clock) + text(json.dumps(state)))
