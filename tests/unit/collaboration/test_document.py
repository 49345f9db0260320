"""One notebook as a shared document."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_ydoc import YNotebook
from pycrdt import Array, Map, Text

from sandbox.collaboration.contracts import Author
from sandbox.collaboration.document import SharedDocument
from sandbox.collaboration.peers import (
    STEP1,
    STEP2,
    SYNC,
    UPDATE,
    Peer,
    PeerCut,
    sync_message,
)
from sandbox.collaboration.varints import Reader
from sandbox.errors import InfrastructureError, InvalidRequest
from sandbox.notebooks import editing
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.models import Cell, Notebook
from sandbox.notebooks.pages import read_page

pytestmark = pytest.mark.anyio

ANNA = Author("anna", "Anna", is_agent=False)


class MemoryStore:
    """Updates in memory."""

    def __init__(self) -> None:
        self.updates: list[bytes] = []
        self.is_full = False

    def load(self) -> Sequence[bytes]:
        return tuple(self.updates)

    def append(self, update: bytes) -> None:
        if self.is_full:
            raise InfrastructureError("full")
        self.updates.append(update)

    def replace(self, update: bytes) -> None:
        self.updates = [update]


class Client:
    """Jupyter's own document at the other end of a peer."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.notebook = YNotebook()
        self.doc = self.notebook.ydoc
        self.made: list[bytes] = []
        self.is_taking = False
        self.doc.observe(self._changed)

    def _changed(self, event: Any) -> None:
        if not self.is_taking:
            self.made.append(event.update)

    async def sync(self) -> None:
        """Take and send until there is nothing to be said."""
        await self.peer.send(sync_message(STEP1, self.doc.get_state()))
        while True:
            for update in self.made:
                await self.peer.send(sync_message(UPDATE, update))
            self.made.clear()
            if not self.peer._waiting:  # pyright: ignore[reportPrivateUsage]
                return
            await self.take(await self.peer.receive())

    async def take(self, message: bytes) -> None:
        reader = Reader(message)
        if reader.varint() != SYNC:
            return
        step, payload = reader.varint(), reader.last_bytes()
        if step == STEP1:
            await self.peer.send(sync_message(STEP2, self.doc.get_update(payload)))
            return
        self.is_taking = True
        self.doc.apply_update(payload)
        self.is_taking = False

    @property
    def sources(self) -> list[str]:
        return [cell["source"] for cell in self.notebook.get()["cells"]]


def document(store: MemoryStore | None = None) -> SharedDocument:
    return SharedDocument(store or MemoryStore())


async def filled(*sources: str, store: MemoryStore | None = None) -> SharedDocument:
    made = document(store)
    cells = tuple(Cell(f"c{at}", "code", source) for at, source in enumerate(sources))
    await made.fill(Notebook(cells, {"kernelspec": {"name": "python3"}}))
    return made


async def client_of(shared: SharedDocument, key: str = "anna") -> Client:
    client = Client(shared.join(Author(key, key, is_agent=False)))
    await client.sync()
    return client


def same(notebook: Notebook) -> Edited:
    return Edited(notebook, (), "")


async def test_a_notebook_that_was_put_in_is_read_again_as_it_was() -> None:
    stream = {"output_type": "stream", "name": "stdout", "text": "é\n"}
    shown = {
        "output_type": "execute_result",
        "data": {"text/plain": "1", "application/json": {"a": [1, 2.5, None]}},
        "metadata": {},
        "execution_count": 3,
    }
    error = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["a", "b"]}
    cells = (
        Cell("a", "code", "x = 'é😀'", {"tags": ["t"]}, (stream, shown, error), 3),
        Cell("b", "markdown", "# T", {}, attachments={"f": {"image/png": "aGk="}}),
        Cell("c", "raw", ""),
    )
    shared = document()
    await shared.fill(Notebook(cells, {"deep": {"list": [1, {"k": "v"}]}}))
    again = SharedDocument(shared._store)  # pyright: ignore[reportPrivateUsage]
    assert shared.read() == again.read() == Notebook(cells, {"deep": {"list": [1, {"k": "v"}]}})


async def test_a_large_notebook_is_put_in_a_little_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandbox.collaboration.document.AT_ONCE_S", 0.0)
    many = tuple(
        {"output_type": "display_data", "data": {"application/json": [at, 1.5]}, "metadata": {}}
        for at in range(100)
    )
    notebook = Notebook((Cell("a", "code", "x", {}, many, 3), Cell("b", "raw", "y")))
    shared = document()
    await shared.fill(notebook)
    assert len(shared._store.load()) > 100  # pyright: ignore[reportPrivateUsage]
    again = SharedDocument(shared._store)  # pyright: ignore[reportPrivateUsage]
    await again.warm()
    assert again.read() == shared.read() == notebook


@pytest.mark.parametrize("where", ["metadata", "cell", "output"])
async def test_a_part_that_would_take_long_is_not_put_in(where: str) -> None:
    deep = {"data": [list(range(100))] * 2600}
    shown = {"output_type": "display_data", "metadata": {}, "data": {"application/json": deep}}
    cell = Cell("a", "code", "x", deep if where == "cell" else {}, (shown,) * (where == "output"))
    shared = document()
    with pytest.raises(InvalidRequest, match="more than 250,000 values"):
        await shared.fill(Notebook((cell,), deep if where == "metadata" else {}))
    assert shared.is_empty


async def test_the_many_outputs_of_a_cell_are_read_at_once() -> None:
    output = {"output_type": "stream", "name": "stdout", "text": "x"}
    took: list[float] = []
    for count in (1500, 6000):
        shared = document()
        await shared.fill(Notebook((Cell("a", "code", "x", {}, (output,) * count),)))
        again = SharedDocument(shared._store)  # pyright: ignore[reportPrivateUsage]
        began = time.process_time()
        assert len(again.read().cells[0].outputs) == count
        took.append(time.process_time() - began)
    assert took[1] < 8 * took[0]  # not as the square


async def test_an_edit_is_seen_by_jupyters_own_document_and_the_other_way_round() -> None:
    shared = await filled("a", "b")
    client = await client_of(shared)
    assert client.sources == ["a", "b"]
    shared.edit(lambda n: editing.overwrite(n, "c0", "a1"))
    shared.edit(lambda n: editing.insert(n, 1, "markdown", "new"))
    await client.sync()
    assert client.sources == ["a1", "new", "b"]
    client.notebook.ycells[2]["source"].insert(1, "2")
    client.notebook.append_cell({"cell_type": "code", "source": "last", "metadata": {}})
    await client.sync()
    assert [cell.source for cell in shared.read().cells] == ["a1", "new", "b2", "last"]


async def test_text_typed_in_a_cell_survives_an_edit_of_the_same_cell() -> None:
    shared = await filled("first line\nsecond line\nthird line\n")
    client = await client_of(shared)
    client.notebook.ycells[0]["source"].insert(len("first line\nsecond"), " TYPED")
    shared.edit(lambda n: editing.edit(n, "c0", "first", "1st"))
    shared.edit(lambda n: editing.edit(n, "c0", "third", "3rd"))
    await client.sync()
    assert shared.read().cells[0].source == "1st line\nsecond TYPED line\n3rd line\n"
    assert client.sources == [shared.read().cells[0].source]


async def test_a_cell_that_moves_leaves_the_others_where_they_are() -> None:
    shared = await filled(*"abcdef")
    client = await client_of(shared)
    texts = [cell["source"] for cell in client.notebook.ycells]
    shared.edit(lambda n: editing.move(n, "c4", 1))
    texts[2].insert(0, "typed ")
    await client.sync()
    assert [cell.id for cell in shared.read().cells] == ["c0", "c4", "c1", "c2", "c3", "c5"]
    assert client.sources == ["a", "e", "b", "typed c", "d", "f"]


async def test_what_is_not_changed_is_not_read_again() -> None:
    shared = await filled("a", "b", "c")
    before = shared.read()
    shared.edit(lambda n: editing.overwrite(n, 1, "B"))
    after = shared.read()
    assert [one is other for one, other in zip(before.cells, after.cells, strict=True)] == [
        *(True, False, True)
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(), st.lists(st.sampled_from(range(7)), min_size=1, max_size=12))
def test_a_document_equals_what_its_edits_made(seed: int, kinds: list[int]) -> None:
    rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
    shared = document()
    value = Notebook()
    for kind in kinds:
        try:
            value = shared.edit(partial(any_edit, kind, rng.randrange(10**9))).notebook
        except ValueError:
            continue
        assert shared.read() == value
        fresh = SharedDocument(shared._store)  # pyright: ignore[reportPrivateUsage]
        assert fresh.read() == value


def any_edit(kind: int, seed: int, notebook: Notebook) -> Edited:
    rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
    count = len(notebook.cells)
    text = "".join(rng.choice("ab\né😀") for _ in range(rng.randrange(12)))
    if kind == 0 or not count:
        return editing.insert(notebook, rng.randint(0, count), "code", text)
    at = rng.randrange(count)
    if kind == 1:
        return editing.overwrite(notebook, at, text)
    if kind == 2:
        return editing.move(notebook, at, rng.randrange(count))
    if kind == 3:
        return editing.delete(notebook, [at])
    cell = notebook.cells[at]
    if kind == 4:
        outputs = [
            {"output_type": "stream", "name": rng.choice(["stdout", "stderr"]), "text": text}
            for _ in range(rng.randrange(4))
        ]
        kept = cell.outputs[: rng.randrange(3)]
        cell = replace(cell, outputs=(*kept, *outputs), execution_count=rng.randrange(9))
        return Edited(notebook.with_cell(at, cell), (), "")
    if kind == 5:
        metadata = {rng.choice("abc"): rng.choice([1, "x", [1, {"y": None}]]) for _ in range(2)}
        return Edited(notebook.with_cell(at, replace(cell, metadata=metadata)), (), "")
    return Edited(replace(notebook, metadata={rng.choice("ab"): rng.randrange(3)}), (), "")


@settings(max_examples=15, deadline=None)
@given(st.integers())
def test_concurrent_edits_of_ten_peers_converge(seed: int) -> None:
    import anyio

    async def run() -> None:
        rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
        shared = await filled("one\n", "two\n", "three\n")
        clients = [await client_of(shared, f"p{at}") for at in range(10)]
        for _ in range(3):
            for client in clients:
                cells = client.notebook.ycells
                choice = rng.randrange(4)
                if choice == 0 or not len(cells):
                    client.notebook.append_cell(
                        {"cell_type": "code", "source": "n", "metadata": {}}
                    )
                elif choice == 1 and len(cells) > 1:
                    del cells[rng.randrange(len(cells))]
                else:
                    cells[rng.randrange(len(cells))]["source"].insert(0, "x")
            shared.edit(partial(any_edit, rng.randrange(3), rng.randrange(10**9)))
            rng.shuffle(clients)
            for client in clients[:7]:
                await client.sync()
        for _ in range(2):
            for client in clients:
                await client.sync()
        expected = [cell.source for cell in shared.read().cells]
        assert all(client.sources == expected for client in clients)

    anyio.run(run)


async def test_what_the_journal_cannot_take_is_undone_and_told_to_nobody() -> None:
    store = MemoryStore()
    shared = await filled("a", store=store)
    client = await client_of(shared)
    store.is_full = True
    with pytest.raises(InfrastructureError):
        shared.edit(lambda n: editing.overwrite(n, 0, "lost"))
    store.is_full = False
    assert shared.read().cells[0].source == "a"
    await client.sync()
    assert client.sources == ["a"]
    shared.edit(lambda n: editing.overwrite(n, 0, "kept"))
    await client.sync()
    assert client.sources == ["kept"]


async def test_an_update_is_in_the_journal_before_others_have_it() -> None:
    store = MemoryStore()
    shared = await filled("a", store=store)
    one, other = await client_of(shared, "one"), await client_of(shared, "other")
    seen: list[int] = []
    before = len(store.updates)
    other.peer.offer_update = lambda update: seen.append(len(store.updates))  # type: ignore[method-assign]
    one.notebook.ycells[0]["source"].insert(0, "!")
    await one.sync()
    assert seen == [before + 1]


async def test_many_updates_are_made_one_and_nothing_is_lost() -> None:
    store = MemoryStore()
    shared = await filled("", store=store)
    for at in range(1100):
        shared.edit(lambda n, at=at: editing.overwrite(n, 0, f"text {at}"))
    assert len(store.updates) < 300
    assert SharedDocument(store).read() == shared.read()


async def test_a_slow_peer_is_cut_off_and_the_others_go_on(monkeypatch: Any) -> None:
    monkeypatch.setattr("sandbox.collaboration.peers.MAX_WAITING_BYTES", 20_000)
    shared = await filled("")
    slow, quick = await client_of(shared, "slow"), await client_of(shared, "quick")
    for at in range(40):
        shared.edit(lambda n, at=at: editing.overwrite(n, 0, f"{at}" * 500))
        await quick.sync()
    with pytest.raises(PeerCut, match="too slow"):
        await slow.peer.receive()
    assert quick.sources == [shared.read().cells[0].source]
    assert [peer.author.key for peer in shared.peers] == ["quick"]


@pytest.mark.parametrize(
    "junk",
    [
        7,
        "text",
        None,
        [1, 2],
        {"id": 5},
        Map({}),
        Map({"id": "c0", "cell_type": "code", "source": Text("double")}),
        Map({"id": "x" * 500, "cell_type": {}, "source": 1.5, "metadata": "no"}),
        Map({"cell_type": "code", "source": ["a", "b"], "outputs": Array([1, None, Map({})])}),
        Map({"cell_type": "code", "outputs": "no", "execution_count": -4.5}),
        Map({"cell_type": "markdown", "source": Text("m"), "attachments": [1]}),
        Array([Array([Map({})])]),
        Text("no cell"),
    ],
    ids=range(13),
)
async def test_whatever_a_peer_puts_among_the_cells_is_shown_with_an_id_of_its_own(
    junk: Any,
) -> None:
    shared = await filled("a")
    client = await client_of(shared)
    client.notebook.ycells.append(junk)
    await client.sync()
    cells = shared.read().cells
    assert len(cells) == 2
    assert len({cell.id for cell in cells}) == 2
    assert all(cell.id for cell in cells)
    shared.edit(lambda n: editing.insert(n, -1, "code", "goes on"))
    assert SharedDocument(shared._store).read() == shared.read()  # pyright: ignore[reportPrivateUsage]


async def test_an_edit_of_a_source_says_little_and_nothing_of_the_outputs() -> None:
    output = {"output_type": "stream", "name": "stdout", "text": "x" * 50_000}
    shared = document()
    await shared.fill(Notebook((Cell("a", "code", "y = 1\n" * 10_000, {}, (output,), 1),)))
    client = await client_of(shared)
    paths: list[list[Any]] = []
    client.notebook.ycells.observe_deep(lambda events: paths.extend(e.path for e in events))
    before = shared.size_bytes
    shared.edit(lambda n: editing.overwrite(n, "a", "y = 1\n" * 5000 + "z\n" + "y = 1\n" * 4999))
    assert shared.size_bytes - before < 200
    await client.sync()
    assert paths == [[0, "source"]]
    assert client.sources == [shared.read().cells[0].source]


async def test_a_stream_that_goes_on_is_added_to() -> None:
    output = {"output_type": "stream", "name": "stdout", "text": "é" * 50_000}
    shared = document()
    await shared.fill(Notebook((Cell("a", "code", "", {}, (output,), 1),)))
    client = await client_of(shared)
    paths: list[list[Any]] = []
    client.notebook.ycells.observe_deep(lambda events: paths.extend(e.path for e in events))
    before = shared.size_bytes
    more = {**output, "text": output["text"] + "more\n"}
    shared.change_cell("a", lambda cell: replace(cell, outputs=(more,)), "running")
    assert shared.size_bytes - before < 200
    await client.sync()
    assert sorted(map(str, paths)) == ["[0, 'outputs', 0, 'text']", "[0]"]
    assert client.notebook.ycells[0]["execution_state"] == "running"
    assert shared.read().cells[0].outputs == (more,)


@pytest.mark.timed
async def test_a_page_of_a_long_notebook_is_read_quickly_after_an_edit() -> None:
    output = {"output_type": "stream", "name": "stdout", "text": "x" * 200}
    cells = [Cell(f"c{at}", "code", "x = 1\n" * 10, {}, (output,), 1) for at in range(1000)]
    shared = document()
    await shared.fill(Notebook(tuple(cells)))
    took: list[float] = []
    for at in range(20):
        shared.edit(lambda n, at=at: editing.overwrite(n, at * 7, f"y = {at}"))
        began = time.perf_counter()
        assert read_page(shared.read(), 0, 200).total == 1000
        took.append(time.perf_counter() - began)
    assert sorted(took)[10] < 0.05


async def test_who_asks_for_much_is_answered_and_waits_before_it_asks_again() -> None:
    now = [0.0]
    shared = SharedDocument(MemoryStore(), clock=lambda: now[0])
    peer = shared.join(ANNA)
    whole = shared.update_since

    def slow(state: bytes) -> bytes:
        now[0] += 1.0
        return whole(state)

    shared.update_since = slow  # type: ignore[method-assign]
    await peer.receive()
    with anyio.move_on_after(0.2) as patience:
        await peer.send(sync_message(STEP1, b"\0"))
    assert patience.cancelled_caught
    assert (await peer.receive())[:2] == bytes((SYNC, STEP2))


async def test_many_peers_have_an_edit_before_it_is_typed_again() -> None:
    shared = await filled("a")
    peers = [shared.join(Author(f"p{at}", f"p{at}")) for at in range(20)]
    shared.edit(lambda n: editing.overwrite(n, 0, "b"))
    for peer in peers:
        await peer.receive()
        assert (await peer.receive())[:2] == bytes((SYNC, UPDATE))
