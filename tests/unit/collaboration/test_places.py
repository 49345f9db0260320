"""Where each item of a document is, and what cannot be anywhere."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, UndoManager

from sandbox.collaboration.places import Places
from sandbox.collaboration.updates import check_update, read_places, read_state
from sandbox.collaboration.varints import varint
from sandbox.errors import InvalidRequest

from ...support.yupdates import json_items, structs, text

ARRAY, TEXT = b"\x00", b"\x02"
KNOWN = structs(
    json_items(b"\x7e", b"\x7e", b"\x7e"),  # 0 to 2, in a list
    b"\x27\x01" + text("meta") + text("k") + TEXT,  # 3
    b"\x04\x00\x05\x03" + text("a😀b"),  # 4 to 7, in that text
    b"\x28\x01" + text("meta") + text("a") + b"\x01\x7e",  # 8
    b"\x00\x02",  # 9 and 10, garbage
)
REFUSED = {
    "between two lists": b"\xc8\x05\x01\x05\x08\x01\x7e",
    "of two keys": b"\xc8\x05\x03\x05\x08\x01\x7e",
    "text in an array": b"\x84\x05\x01" + text("x"),
    "a value in a text": b"\x88\x05\x04\x01\x7e",
    "an entry of a list": b"\x28\x00\x05\x03" + text("k") + b"\x01\x7e",
    "an item of a map": b"\x08\x01" + text("meta") + b"\x01\x7e",
    "behind itself": b"\x88\x05\x0b\x01\x7e",
    "in itself": b"\x07\x00\x05\x0b\x00",
    "behind half a character": b"\x84\x05\x05" + text("x"),
    "before half a character": b"\x44\x05\x06" + text("x"),
    "of nothing": b"\x84\x05\x04" + text(""),
    "garbage of nothing": b"\x00\x00",
}


@pytest.mark.parametrize("item", REFUSED.values(), ids=REFUSED)
def test_an_item_that_can_be_in_no_one_list_is_refused(item: bytes) -> None:
    with pytest.raises(InvalidRequest):
        check_update(structs(item, clock=11), known(), ())


@pytest.mark.parametrize("start", [4, 6])
def test_half_a_character_is_not_deleted(start: int) -> None:
    with pytest.raises(InvalidRequest, match="half"):
        check_update(b"\0\x01\x05\x01" + bytes((start, 2)), known(), ())


def test_the_rest_of_an_item_is_where_its_beginning_is() -> None:
    first = structs(json_items(b"\x7e", b"\x7e"))
    check_update(structs(json_items(*[b"\x7e"] * 5)), read_places(first), ())
    elsewhere = b"\x28\x01" + text("meta") + text("k") + b"\x05" + b"\x7e" * 5
    with pytest.raises(InvalidRequest, match="anew"):
        check_update(structs(elsewhere), read_places(first), ())


def test_items_that_wait_for_each_other_are_refused() -> None:
    def behind(client: int, other: int) -> bytes:
        return b"\x01" + varint(client) + b"\x00\x88" + varint(other) + b"\x00\x01\x7e"

    with pytest.raises(InvalidRequest, match="circle"):
        check_update(b"\x02" + behind(6, 7) + behind(7, 6) + b"\0", known(), ())


@pytest.mark.parametrize("item", [b"\x84\x05\x09" + text("x"), b"\x04\x00\x05\x09" + text("x")])
def test_what_builds_on_garbage_becomes_garbage_and_is_let_through(item: bytes) -> None:
    places = known()
    places.absorb(check_update(structs(item, clock=11), places, ()).places)
    places.absorb(check_update(structs(b"\x88\x05\x0b\x01\x7e", clock=12), places, ()).places)
    assert places.end(5) == 13


def test_what_is_refused_leaves_nothing_behind() -> None:
    places = known()
    good, bad = b"\x07\x01" + text("cells") + ARRAY, REFUSED["between two lists"]
    with pytest.raises(InvalidRequest):
        check_update(structs(good, bad, clock=11), places, ())
    assert places.end(5) == 11
    check_update(structs(good, clock=11), places, ())


@pytest.mark.parametrize("seed", range(25))
def test_nothing_of_an_honest_client_is_refused(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
    server, *clients = (Client(rng, number) for number in rng.sample(range(1, 99), 4))
    places = Places()
    for _ in range(40):
        client = rng.choice(clients)
        for _ in range(rng.randint(1, 6)):
            client.act()
        if rng.random() < 0.4:
            continue  # it is offline
        state = b"\0" if rng.random() < 0.3 else server.doc.get_state()
        update = client.doc.get_update(state)
        places.absorb(check_update(update, places, ()).places)
        server.doc.apply_update(update)
        assert places.ends == read_state(server.doc.get_state())
        client.doc.apply_update(server.doc.get_update(client.doc.get_state()))
        if rng.random() < 0.1:
            places = read_places(server.doc.get_update())
    for client in clients:
        server.doc.apply_update(client.doc.get_update())
    for client in clients:
        client.doc.apply_update(server.doc.get_update())
        assert client.cells.to_py() == server.cells.to_py()


def known() -> Places:
    """The places of a small document."""
    return read_places(KNOWN)


class Client:
    """One who edits a notebook, and undoes it at times."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.rng = rng
        self.doc = Doc[Any](client_id=number, skip_gc=rng.random() < 0.3)
        self.cells: Array[Any] = self.doc.get("cells", type=Array)
        self.meta: Map[Any] = self.doc.get("meta", type=Map)
        self.undo = UndoManager(scopes=[self.cells], capture_timeout_millis=0)

    def act(self) -> None:
        """Do something."""
        rng, cells = self.rng, self.cells
        at = rng.randrange(len(cells)) if len(cells) else 0
        choice = rng.choice(("cell", "type", "type", "output", "delete", "move", "set", "undo"))
        if choice == "cell" or not len(cells):
            cells.insert(at, made_cell(rng.choice(("ab", "é😀", "")), rng.randint(0, 2)))
        elif choice == "type":
            source = cells[at]["source"]
            before = str(source)[: rng.randint(0, len(str(source)))]
            if rng.random() < 0.7:
                source.insert(len(before.encode()), rng.choice(("q", "😀", "longer")))
            elif before:
                del source[len(before[:-1].encode()) : len(before.encode())]
        elif choice == "output":
            outputs = cells[at]["outputs"]
            if len(outputs) and rng.random() < 0.5:
                del outputs[0 : len(outputs)]
            else:
                outputs.append(rng.choice(({"a": 1}, "s")))
        elif choice == "delete":
            del cells[at]
        elif choice == "move":
            source = str(cells[at]["source"])
            with self.doc.transaction():
                del cells[at]
                cells.insert(rng.randint(0, len(cells)), made_cell(source, 0))
        elif choice == "set":
            where = rng.choice((cells[at]["metadata"], self.meta))
            where[rng.choice("ab")] = rng.choice((1, [1], Map({"z": Text("1")})))
        else:
            with suppress(RuntimeError):
                rng.choice((self.undo.undo, self.undo.redo))()


def made_cell(source: str, outputs: int) -> Map[Any]:
    """A cell as JupyterLab makes it."""
    return Map(
        {
            "source": Text(source),
            "outputs": Array([Map({"text": Text("o")}) for _ in range(outputs)]),
            "metadata": Map({"a": [1, {"b": 2}]}),
        }
    )
