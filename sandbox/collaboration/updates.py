"""What a peer's update of the document may be, looked at before anything is made of it.

The library that applies updates recurses as deep as a value is nested, and ends the process where
the stack does; and an update could fill roots and kinds that no notebook has. So only what
JupyterLab's documents are made of is let through: items of texts, maps and arrays, in the three
roots of a notebook, with JSON of a bounded depth, each where it can be (:mod:`.places`).

An update that builds on what the document does not have is not applied either: it would have to
wait in memory for what may never come. Its sender is asked for what is missing.

https://github.com/yjs/yjs/blob/main/src/utils/UpdateDecoder.js
"""

from __future__ import annotations

from collections.abc import Container
from math import inf
from sys import intern
from typing import NamedTuple

from sandbox.collaboration.places import (
    ANY,
    DELETED,
    GC,
    MAX_STEPS,
    ROOTS,
    STRING,
    TYPE,
    Id,
    Places,
    Struct,
)
from sandbox.collaboration.varints import Malformed, Reader
from sandbox.errors import InvalidRequest

MAX_CLOCK = 2**31
MAX_JSON_DEPTH = 100
MAX_PARTS = 200_000
"""The items, values and deletions of one update: each can take 200 bytes in memory."""
_SKIP = 10
_TYPES = frozenset((0, 1, 2))
"""Arrays, maps and texts."""
_SIZES = {124: 4, 123: 8, 122: 8}
"""Of numbers, in bytes, by the sign before them."""
_BARE = frozenset((127, 126, 121, 120))
"""Undefined, null, false and true."""


class Missing(Exception):
    """An update builds on what is not there."""


class Checked(NamedTuple):
    """An update that may be applied."""

    types: int
    """The texts, maps and arrays that it makes."""
    parts: int
    """Its items, JSON values and deletions."""
    characters: int
    """Of its texts; where they are put into a list, each is an item of that."""
    is_new: bool
    """Whether it makes anything that is not known."""
    places: Places
    """What it adds to where things are."""


def check_update(update: bytes, known: Places, reserved: Container[int]) -> Checked:
    """Look at an update.

    Args:
        known: Where all of the document is.
        reserved: The ids under which this side and other peers make their changes; what is known of
            those may be said again, as some clients do, but nothing is made in their name.

    Raises:
        InvalidRequest: It is malformed, or has something in it that no notebook has.
        Missing: It builds on what is not in the document.
    """
    check = _Check(Reader(update))
    added = Places(known)
    try:
        check.read()
        new = [client for client, clock in check.made.items() if clock > known.end(client)]
        if any(client in reserved for client in new):
            raise InvalidRequest("The update is made in the name of somebody else.")
        for client, clock in check.begun.items():
            if clock > known.end(client):
                raise Missing
        for client, clock in check.needed.items():
            if clock > max(known.end(client), check.made.get(client, 0)):
                raise Missing
        added.add(check.found)
        for deletion in check.deleted:
            added.delete(*deletion)
        if added.steps > MAX_STEPS:
            raise Malformed("it takes too long to find out where all of it belongs")
    except Malformed as exc:
        raise InvalidRequest(f"The update is malformed: {exc}.") from exc
    return Checked(check.types, check.parts, check.characters, bool(new), added)


def read_places(update: bytes, known: Places | None = None) -> Places:
    """Where all of a document is, from an update of this side, which has all of it or goes on from
    what is known.

    Raises:
        InvalidRequest: It is not what a document of this side can be.
    """
    check = _Check(Reader(update), is_own=True)
    added = Places(known)
    try:
        check.read()
        added.add(check.found)
    except Malformed as exc:
        raise InvalidRequest(f"The document is damaged: {exc}.") from exc
    return added


def read_state(state: bytes) -> dict[int, int]:
    """A state vector: the clock of each client.

    Raises:
        InvalidRequest: It is malformed.
    """
    reader = Reader(state)
    try:
        found = {reader.varint(): reader.varint() for _ in range(reader.varint())}
        if not reader.is_at_end:
            raise Malformed("it goes on behind its end")
    except Malformed as exc:
        raise InvalidRequest(f"The state is malformed: {exc}.") from exc
    return found


class _Check:
    def __init__(self, reader: Reader, *, is_own: bool = False) -> None:
        self.reader = reader
        self.max_parts = inf if is_own else MAX_PARTS
        self.max_depth = inf if is_own else MAX_JSON_DEPTH
        self.types = self.parts = self.characters = 0
        self.begun: dict[int, int] = {}
        """Of each client, the clock up to which the document must have its changes."""
        self.made: dict[int, int] = {}
        """The clock behind the last of it."""
        self.needed: dict[int, int] = {}
        """The clock behind the last thing that it refers to."""
        self.found: dict[int, list[Struct]] = {}
        self.deleted: list[tuple[int, int, int]] = []
        """Clients, clocks and lengths."""
        self._halves: tuple[int, ...] = ()

    def read(self) -> None:
        self.structs()
        self.deletions()
        if not self.reader.is_at_end:
            raise Malformed("it goes on behind its end")

    def structs(self) -> None:
        reader = self.reader
        for _ in range(reader.varint()):
            count, client, clock = reader.varint(), reader.varint(), reader.varint()
            if client in self.begun:
                raise Malformed("it has a client twice")
            if not count:
                raise Malformed("it names a client that does nothing in it")
            self.begun[client] = clock
            found = self.found[client] = []
            for _ in range(count):
                self._part()
                info = reader.byte()
                kind = info & 31
                if kind == _SKIP:
                    clock += reader.varint()
                    self.begun[client] = clock  # all before must be there already
                    continue
                struct = (
                    Struct(clock, reader.varint(), GC)
                    if kind == GC
                    else self._item(info, kind, clock)
                )
                if not struct.length:
                    raise Malformed("it has an item of nothing")
                clock += struct.length
                if clock > MAX_CLOCK:
                    raise Malformed("its clock is too far ahead")
                found.append(struct)
                self.made[client] = clock

    def deletions(self) -> None:
        reader = self.reader
        for _ in range(reader.varint()):
            client = reader.varint()
            for _ in range(reader.varint()):
                self._part()
                clock, length = reader.varint(), reader.varint()
                self._need(client, clock + length)
                if length:
                    self.deleted.append((client, clock, length))

    def _need(self, client: int, clock: int) -> None:
        if clock > MAX_CLOCK:
            raise Malformed("it refers to a clock too far ahead")
        if clock > self.needed.get(client, 0):
            self.needed[client] = clock

    def _part(self) -> None:
        self.parts += 1
        if self.parts > self.max_parts:
            raise Malformed(f"it has more than {MAX_PARTS:,} parts")

    def _id(self) -> Id:
        client, clock = self.reader.varint(), self.reader.varint()
        self._need(client, clock + 1)
        return client, clock

    def _item(self, info: int, content: int, clock: int) -> Struct:
        reader = self.reader
        origin = self._id() if info & 0x80 else None
        right = self._id() if info & 0x40 else None
        parent: Id | str | None = None
        key = None
        if not info & 0xC0:
            if reader.varint() == 1:
                if (parent := reader.text()) not in ROOTS:
                    raise Malformed(f"a notebook has no {parent[:40]!r}")
            else:
                parent = self._id()
            if info & 0x20:
                key = intern(reader.text())
        self._halves = ()
        length, kind = self._content(content)
        return Struct(clock, length, content, kind, origin, right, parent, key, self._halves)

    def _content(self, content: int) -> tuple[int, int]:
        """Pass over what an item holds; its length, and which type it is."""
        reader = self.reader
        if content == DELETED:
            return reader.varint(), 0
        if content == STRING:
            text = reader.text()
            # In UTF-16, as Yjs counts.
            length = len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
            self.characters += length
            if length > len(text):
                self._halves = _halves(text)
            return length, 0
        if content == ANY:
            count = reader.varint()
            for _ in range(count):
                self._any()
            return count, 0
        if content == TYPE:
            if (kind := reader.varint()) not in _TYPES:
                raise Malformed("it holds a kind that no notebook has")
            self.types += 1
            return 1, kind
        raise Malformed(f"it holds content {content}, which no notebook has")

    def _any(self) -> None:
        """Pass over a JSON value, without recursion: what is left of each open list and object."""
        reader = self.reader
        left = [1]
        keyed = [False]
        while left:
            if left[-1] == 0:
                left.pop()
                keyed.pop()
                continue
            left[-1] -= 1
            if keyed[-1]:
                reader.bytes()
            self._part()
            sign = reader.byte()
            if sign in _BARE:
                continue
            if sign in _SIZES:
                reader.skip(_SIZES[sign])
            elif sign == 125:
                while reader.byte() & 128:
                    pass
            elif sign in (119, 116):
                reader.bytes()
            elif sign in (118, 117):
                if len(left) > self.max_depth:
                    raise Malformed(f"its JSON is nested more than {MAX_JSON_DEPTH} deep")
                left.append(reader.varint())
                keyed.append(sign == 118)
            else:
                raise Malformed("it holds a value of no known kind")


def _halves(text: str) -> tuple[int, ...]:
    """Where the second halves are of those characters of a text that take two in UTF-16."""
    wide = (at for at, character in enumerate(text) if character > "\uffff")
    return tuple(at + before + 1 for before, at in enumerate(wide))
