"""What a peer sends is looked at before anything is made of it."""

from __future__ import annotations

import random
from contextlib import suppress

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from sandbox.collaboration.authors import Author
from sandbox.collaboration.document import SharedDocument
from sandbox.collaboration.peers import STEP1, SYNC, UPDATE, PeerCut, sync_message
from sandbox.collaboration.places import Places
from sandbox.collaboration.updates import check_update, read_state
from sandbox.errors import InvalidRequest, NotPermitted, QuotaExceeded, SandboxError
from sandbox.notebooks import editing

from ...support.yupdates import HOSTILE, WAITING, json_items, nested_arrays, structs, text
from .test_document import MemoryStore, client_of, document, filled

pytestmark = pytest.mark.anyio

EVE = Author("eve", "Eve", is_agent=False)


@pytest.mark.parametrize("update", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_update_is_refused_and_the_document_intact(update: bytes) -> None:
    store = MemoryStore()
    shared = await filled("a", store=store)
    client = await client_of(shared)
    before, kept = shared.read(), list(store.updates)
    with pytest.raises(SandboxError):
        await shared.join(EVE).send(sync_message(UPDATE, update))
    assert shared.read() == before
    assert store.updates == kept
    shared.edit(lambda n: editing.insert(n, -1, "code", "goes on"))
    await client.sync()
    assert client.sources == ["a", "goes on"]


@pytest.mark.parametrize("update", WAITING.values(), ids=WAITING)
async def test_what_builds_on_nothing_is_not_kept_waiting_and_its_sender_is_asked(
    update: bytes,
) -> None:
    store = MemoryStore()
    shared = await filled("a", store=store)
    eve = shared.join(EVE)
    await eve.receive()
    kept = list(store.updates)
    await eve.send(sync_message(UPDATE, update))
    assert (await eve.receive())[:2] == bytes((SYNC, STEP1))
    assert store.updates == kept


async def test_arrays_are_not_nested_without_end_by_one_update_after_the_other() -> None:
    shared = await filled("a")
    client = await client_of(shared)
    deepest = client.notebook.ycells[0]["metadata"]
    with pytest.raises(SandboxError):  # noqa: PT012  # whichever of them it is
        for _ in range(60):
            deepest["k"] = Map({})
            deepest = deepest["k"]
            await client.sync()
    assert not client.peer.is_in
    assert shared.read().cells[0].source == "a"


async def test_texts_are_no_way_around_that_bound() -> None:
    shared = await filled()
    eve = shared.join(EVE)
    first = b"\x27\x01" + text("state") + text("k") + b"\x02"
    await eve.send(sync_message(UPDATE, structs(first)))
    clock = 1
    with pytest.raises(SandboxError):  # noqa: PT012  # whichever of them it is
        for _ in range(60):  # in the text that was made last, another one
            made = structs(b"\x07\x00\x05" + bytes((clock - 1,)) + b"\x02", clock=clock)
            await eve.send(sync_message(UPDATE, made))
            clock += 1
    assert 5 < clock < 30


async def test_nobody_makes_changes_in_the_name_of_the_server() -> None:
    shared = await filled("a")
    own = shared._now().doc.client_id  # pyright: ignore[reportPrivateUsage]
    clock = read_state(shared._now().doc.get_state())[own]  # pyright: ignore[reportPrivateUsage]
    update = structs(json_items(b"\x7e"), client=own, clock=clock)
    with pytest.raises(InvalidRequest):
        await shared.join(EVE).send(sync_message(UPDATE, update))


async def test_a_document_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.collaboration.document.MAX_DOCUMENT_BYTES", 20_000)
    shared = await filled("a")
    client = await client_of(shared)
    with pytest.raises(QuotaExceeded):  # noqa: PT012  # whichever of them it is
        for _ in range(50):
            client.notebook.ycells[0]["source"].insert(0, "x" * 1000)
            await client.sync()
    assert len(shared.read().cells[0].source) > 10_000


async def test_a_large_update_is_taken_as_well_as_a_small_one() -> None:
    store = MemoryStore()
    shared = await filled("a", store=store)
    client = await client_of(shared)
    other = await client_of(shared, "other")
    client.notebook.ycells[0]["source"].insert(0, "x" * 100_000)
    client.notebook.append_cell({"cell_type": "code", "source": "last", "metadata": {}})
    await client.sync()
    await other.sync()
    assert [cell.source[-5:] for cell in shared.read().cells] == ["xxxxa", "last"]
    other.notebook.ycells[0]["source"].insert(0, "small ")
    await other.sync()
    await client.sync()
    assert shared.read().cells[0].source[:8] == "small xx"
    assert client.sources == other.sources == [cell.source for cell in shared.read().cells]
    assert SharedDocument(store).read() == shared.read()


async def test_a_reader_reads_and_changes_nothing() -> None:
    shared = await filled("a")
    reader = shared.join(EVE, may_write=False)
    writer = await client_of(shared)
    await reader.send(sync_message(STEP1, b"\0"))
    other = Doc[Array[object]]()
    other.get("cells", type=Array)
    other.apply_update((await reader.receive())[4:])
    with pytest.raises(NotPermitted):
        await reader.send(sync_message(UPDATE, structs(json_items(b"\x7e"))))
    writer.notebook.ycells[0]["source"].insert(0, "typed ")
    await writer.sync()
    assert (await reader.receive())[1] == UPDATE
    assert shared.read().cells[0].source == "typed a"


@pytest.mark.parametrize(
    "message",
    [b"", b"\0", b"\0\0", b"\0\x03\0", b"\0\x02\x05ab", b"\x01", b"\x01\x05", b"\xff" * 99],
)
async def test_a_malformed_message_is_refused(message: bytes) -> None:
    shared = await filled("a")
    with pytest.raises(InvalidRequest):
        await shared.join(EVE).send(message)
    assert shared.read().cells[0].source == "a"


async def test_who_has_left_sends_and_receives_no_more() -> None:
    shared = await filled("a")
    eve = shared.join(EVE)
    await eve.receive()
    eve.leave("Its token was revoked.")
    with pytest.raises(PeerCut, match="revoked"):
        await eve.receive()
    with pytest.raises(PeerCut):
        await eve.send(sync_message(UPDATE, structs(json_items(b"\x7e"))))


def test_what_jupyters_documents_are_made_of_is_let_through() -> None:
    other = Doc[object]()
    updates: list[bytes] = []
    other.observe(lambda event: updates.append(event.update))
    cells: Array[object] = other.get("cells", type=Array)
    meta: Map[object] = other.get("meta", type=Map)
    meta["metadata"] = Map({"a": [1, 2.5, {"b": None}], "big": 2**53, "t": True})
    cells.append(Map({"source": Text("é😀"), "outputs": Array([Map({"text": Text("x")})])}))
    cells[0]["source"].insert(2, "y")  # type: ignore[index]
    del cells[0]["source"][0:2]  # type: ignore[index]
    del cells[0]
    known = Places()
    for update in updates:
        known.absorb(check_update(update, known, {1}).places)
    assert known.ends == read_state(other.get_state())
    check_update(other.get_update(), Places(), {1})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_taken_and_never_a_crash(data: bytes) -> None:
    async def run() -> None:
        shared = document()
        peer = shared.join(EVE)
        update = data[: len(data) & 127]
        for message in (data, b"\0\x02" + bytes((len(update),)) + update):
            with suppress(SandboxError):
                await peer.send(message)
        shared.read()

    anyio.run(run)


@settings(max_examples=60, deadline=None)
@given(st.integers())
def test_updates_with_bytes_changed_leave_a_document_that_can_be_used(seed: int) -> None:
    async def run() -> None:
        rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
        store = MemoryStore()
        shared = await filled("one", "two", store=store)
        client = await client_of(shared)
        client.notebook.append_cell({"cell_type": "code", "source": "n", "metadata": {"a": [1]}})
        client.notebook.ycells[0]["source"].insert(1, "xyz")
        (*good,) = client.made
        for update in [*good, nested_arrays(8)]:
            changed = bytearray(update)
            for _ in range(rng.randint(1, 3)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            peer = shared.join(EVE)
            with suppress(SandboxError):
                await peer.send(sync_message(UPDATE, bytes(changed)))
            peer.leave()
        shared.edit(lambda n: editing.insert(n, -1, "code", "goes on"))
        assert SharedDocument(store).read() == shared.read()

    anyio.run(run)
