"""What a peer's update of the document may be, looked at before anything is made of it.

The library that applies updates recurses as deep as a value is nested, and ends the process where
the stack does; and an update could fill roots and kinds that no notebook has. So only what
JupyterLab's documents are made of is let through: items of texts, maps and arrays, in the three
roots of a notebook, with JSON of a bounded depth.

An update that builds on what the document does not have is not applied either: it would have to
wait in memory for what may never come. Its sender is asked for what is missing.

https://github.com/yjs/yjs/blob/main/src/utils/UpdateDecoder.js
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from sandbox.collaboration.varints import Malformed, Reader
from sandbox.errors import InvalidRequest

ROOTS = frozenset(("cells", "meta", "state"))
MAX_CLOCK = 2**31
MAX_JSON_DEPTH = 100
MAX_PARTS = 200_000
"""The items, values and deletions of one update: each can take 200 bytes in memory."""
_GC, _DELETED, _STRING, _TYPE, _ANY, _SKIP = 0, 1, 4, 7, 8, 10
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


def check_update(update: bytes, known: dict[int, int], reserved: Container[int]) -> Checked:
    """Look at an update.

    Args:
        known: The document's state: the clock of each client.
        reserved: The ids under which this side and other peers make their changes; what is known of
            those may be said again, as some clients do, but nothing is made in their name.

    Raises:
        InvalidRequest: It is malformed, or has something in it that no notebook has.
        Missing: It builds on what is not in the document.
    """
    check = _Check(Reader(update))
    try:
        check.structs()
        check.deletions()
        if not check.reader.is_at_end:
            raise Malformed("it goes on behind its end")
    except Malformed as exc:
        raise InvalidRequest(f"The update is malformed: {exc}.") from exc
    new = [client for client, clock in check.made.items() if clock > known.get(client, 0)]
    if any(client in reserved for client in new):
        raise InvalidRequest("The update is made in the name of somebody else.")
    for client, clock in check.begun.items():
        if clock > known.get(client, 0):
            raise Missing
    for client, clock in check.needed.items():
        if clock > max(known.get(client, 0), check.made.get(client, 0)):
            raise Missing
    return Checked(check.types, check.parts, check.characters, bool(new))


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
    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.types = self.parts = self.characters = 0
        self.begun: dict[int, int] = {}
        """Of each client, the clock up to which the document must have its changes."""
        self.made: dict[int, int] = {}
        """The clock behind the last of it."""
        self.needed: dict[int, int] = {}
        """The clock behind the last thing that it refers to."""

    def structs(self) -> None:
        reader = self.reader
        for _ in range(reader.varint()):
            count, client, clock = reader.varint(), reader.varint(), reader.varint()
            if client in self.begun:
                raise Malformed("it has a client twice")
            self.begun[client] = clock
            for _ in range(count):
                self._part()
                info = reader.byte()
                kind = info & 31
                if kind == _SKIP:
                    clock += reader.varint()
                    self.begun[client] = clock  # all before must be there already
                elif kind == _GC:
                    clock += reader.varint()
                else:
                    clock += self._item(info, kind)
                if clock > MAX_CLOCK:
                    raise Malformed("its clock is too far ahead")
                if kind != _SKIP:
                    self.made[client] = clock

    def deletions(self) -> None:
        reader = self.reader
        for _ in range(reader.varint()):
            client = reader.varint()
            for _ in range(reader.varint()):
                self._part()
                clock, length = reader.varint(), reader.varint()
                self._need(client, clock + length)

    def _need(self, client: int, clock: int) -> None:
        if clock > MAX_CLOCK:
            raise Malformed("it refers to a clock too far ahead")
        if clock > self.needed.get(client, 0):
            self.needed[client] = clock

    def _part(self) -> None:
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise Malformed(f"it has more than {MAX_PARTS:,} parts")

    def _id(self) -> None:
        self._need(self.reader.varint(), self.reader.varint() + 1)

    def _item(self, info: int, kind: int) -> int:
        """Pass over an item and return its length."""
        reader = self.reader
        if info & 0x80:
            self._id()
        if info & 0x40:
            self._id()
        if not info & 0xC0:
            if reader.varint() == 1:
                if (root := reader.text()) not in ROOTS:
                    raise Malformed(f"a notebook has no {root[:40]!r}")
                if (root == "cells") == bool(info & 0x20):  # that is a list, the others are maps
                    raise Malformed(f"it takes {root!r} for what it is not")
            else:
                self._id()
            if info & 0x20:
                reader.text()
        if kind == _DELETED:
            return reader.varint()
        if kind == _STRING:
            text = reader.text()
            # In UTF-16, as Yjs counts.
            length = len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
            self.characters += length
            return length
        if kind == _ANY:
            count = reader.varint()
            for _ in range(count):
                self._any()
            return count
        if kind == _TYPE:
            if reader.varint() not in _TYPES:
                raise Malformed("it holds a kind that no notebook has")
            self.types += 1
            return 1
        raise Malformed(f"it holds content {kind}, which no notebook has")

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
                if len(left) > MAX_JSON_DEPTH:
                    raise Malformed(f"its JSON is nested more than {MAX_JSON_DEPTH} deep")
                left.append(reader.varint())
                keyed.append(sign == 118)
            else:
                raise Malformed("it holds a value of no known kind")
