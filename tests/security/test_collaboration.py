"""Attacks by those who share a notebook: by its document, its awareness and its file."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox.collaboration.authors import Author
from sandbox.collaboration.document import SharedDocument
from sandbox.collaboration.peers import STEP1, UPDATE, PeerCut, awareness_message, sync_message
from sandbox.collaboration.updates import read_state
from sandbox.collaboration.varints import varint
from sandbox.errors import InvalidRequest, NotPermitted, QuotaExceeded, SandboxError
from sandbox.notebooks import editing
from sandbox.notebooks.models import Cell, Notebook

from ..support.yfuzz import random_update
from ..support.yupdates import CLIENT, HOSTILE, in_root, json_items, structs, text

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
MEMORY_BYTES = 3 * 1024 * 1024 * 1024
"""Of the address space of a process that has tried all of them, with all that it imports."""
TIME_S = 120.0
FUZZED = 60
"""Documents."""
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


def shared_state(shared: SharedDocument) -> dict[int, int]:
    """The clock of each client, as a peer is told it."""
    return read_state(shared._now().doc.get_state())  # pyright: ignore[reportPrivateUsage]


async def fuzzed(cases: int) -> None:
    """Documents that somebody gives updates made at random; in a process of its own, for what the
    library that applies them does not come back from cannot be ended but with the process."""
    taken = 0
    for seed in range(cases):
        rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
        store = MemoryStore()
        shared = SharedDocument(store)
        await shared.fill(Notebook((Cell("a", "code", "kept"), Cell("b", "code", "kept"))))
        for _ in range(rng.randint(1, 25)):
            state = shared_state(shared)
            peer, before = shared.join(EVE), len(store.updates)
            with suppress(SandboxError):
                await peer.send(sync_message(UPDATE, random_update(rng, state)))
            taken += len(store.updates) > before
            peer.leave()
            cells = shared.read().cells
            if cells and rng.random() < 0.3:
                shared.edit(lambda n, id=cells[0].id: editing.overwrite(n, id, "new"))
                shared.edit(lambda n, cells=cells: editing.move(n, cells[0].id, len(cells) - 1))
        SharedDocument(store).read()
        for cell in shared.read().cells:
            shared.edit(lambda n, cell=cell: editing.delete(n, [cell.id]))
        shared.close()
    print(taken)


def test_no_update_of_a_peer_makes_the_controller_loop_for_ever() -> None:
    """Invariant 3: items that belong nowhere, to two lists or to half a character are refused."""
    code = f"import anyio; from {__name__} import fuzzed; anyio.run(fuzzed, {FUZZED})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=TIME_S
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert b"panicked" not in done.stderr
    assert int(done.stdout.split()[-1]) > FUZZED  # most of what is made at random is taken


@pytest.mark.parametrize("kind", ["put at the same place", "cut out of one text"])
async def test_no_update_of_a_peer_keeps_the_controller_busy(kind: str) -> None:
    """Invariant 3: what each item is compared with, or split off, is bounded in all."""
    shared = await filled()
    if kind == "cut out of one text":
        first = structs(
            b"\x27\x01" + text("state") + text("k") + b"\x02",
            b"\x04\x00\x05\x00" + text("x" * 2_000_000),
        )
        cuts = b"".join(varint(2_000_000 - 2 * at) + b"\x01" for at in range(5000))
        second = b"\0\x01\x05" + varint(5000) + cuts
    else:
        first, second = (structs(*[json_items(b"\x7e")] * 2000, client=client) for client in (5, 6))
    await shared.join(EVE).send(sync_message(UPDATE, first))
    with pytest.raises(InvalidRequest, match="too long"):
        await shared.join(EVE).send(sync_message(UPDATE, second))


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
