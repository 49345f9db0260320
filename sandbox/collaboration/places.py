"""Where each item of a document is: in which text or array, or under which key of which map.

The library that applies updates takes an item's word for where it belongs. Where two parts of one
item name different lists, or a list gets what it cannot hold, lengths and links do not fit any
more, and reading or deleting them may never end. So this index says of each item's origins and
parent whether they agree, before the library sees it.

It holds runs of what one client made in one list, not items, and is only ever added to. What was
collected as garbage is in no list that is known; the library makes garbage of what builds on it.

https://github.com/yjs/yjs/blob/main/INTERNALS.md
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sandbox.collaboration.varints import Malformed

GC, DELETED, STRING, TYPE, ANY = 0, 1, 4, 7, 8
ARRAY, MAP, TEXT = 0, 1, 2
ROOTS = {"cells": ARRAY, "meta": MAP, "state": MAP}
MAX_STEPS = 3_000_000
"""That the library may take to put in what an update has: 0.3 µs for each, where it must."""
_SPLIT_AT_ONCE = 64
"""Characters and values that are passed over in the time of a step."""

Id = tuple[int, int]
"""The client that made something, and its clock."""


class Struct(NamedTuple):
    """One item of an update, or what is left of some."""

    clock: int
    length: int
    content: int
    kind: int = 0
    """Of a type: array, map or text."""
    origin: Id | None = None
    """What it was put behind."""
    right: Id | None = None
    """What it was put before."""
    parent: Id | str | None = None
    """What it is in, a root or a type; said only where it has neither of those."""
    key: str | None = None
    halves: tuple[int, ...] = ()
    """Of a text, where the second halves of characters are that take two."""


class Branch:
    """An array, map or text."""

    __slots__ = ("count", "kind")

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.count = 0
        """How many items were put into it."""


Place = Branch | tuple[Branch, str] | None
"""The list that an item is in: an array's, a text's, or what a key of a map held one after the
other; None where it was collected."""


_HALVED = "it is about half a character"
_NONE: tuple[array[int], list[Place]] = array("q"), []


class Places:
    """The places of all items of a document, or of those that an update adds.

    Args:
        base: What it adds to, which is not changed before :meth:`absorb`.
    """

    def __init__(self, base: Places | None = None) -> None:
        self._base = base
        self._roots = base._roots if base else {name: Branch(ROOTS[name]) for name in ROOTS}
        self.ends: dict[int, int] = {}
        """The clock behind the last item of each client."""
        self._runs: dict[int, tuple[array[int], list[Place]]] = {}
        """Of each client, where its runs begin and what they are in."""
        self._branches: dict[Id, Branch] = {}
        self._put: dict[Branch, int] = {}
        """How many items this adds to those of the base."""
        self._halves: dict[int, array[int]] = {}
        """Of each client, the clocks before which nothing can be split."""
        self._followed: set[Id] = set()
        """What was added and has something put behind it."""
        self.steps = 0.0
        """About what the library takes at most to add all that."""

    def end(self, client: int) -> int:
        """The clock behind the last item of a client."""
        known = self.ends.get(client)
        if known is None:
            known = self._base.end(client) if self._base else 0
        return known

    def add(self, structs: Mapping[int, Sequence[Struct]]) -> None:
        """Add what an update has, each where what it builds on is there.

        Raises:
            Malformed: It builds on itself, or does not agree where it belongs.
        """
        done = dict.fromkeys(structs, 0)
        waiting: dict[int, list[tuple[int, int]]] = {}
        ready = list(structs)
        while ready:
            client = ready.pop()
            at, own = done[client], structs[client]
            while at < len(own):
                struct = own[at]
                lacks = self._lacks(struct)
                if lacks is not None:
                    heapq.heappush(waiting.setdefault(lacks[0], []), (lacks[1], client))
                    break
                self._add(client, struct)
                at += 1
            done[client] = at
            waiters = waiting.get(client)
            while waiters and waiters[0][0] < self.end(client):
                ready.append(heapq.heappop(waiters)[1])
        if any(waiting.values()):
            raise Malformed("its items build on each other in a circle")

    def delete(self, client: int, clock: int, length: int) -> None:
        """Count what it takes to delete something, all of which must be there."""
        self.steps += self._split(client, clock) + self._split(client, clock + length)

    def absorb(self, added: Places) -> None:
        """Take over what was added."""
        self._branches |= added._branches
        for client, (starts, places) in added._runs.items():
            self._extend(client, starts, places)
        self.ends |= added.ends
        for client, halves in added._halves.items():
            self._halves.setdefault(client, array("q")).extend(halves)
        for branch, count in added._put.items():
            branch.count += count

    # --- inside

    def _lacks(self, struct: Struct) -> Id | None:
        """Something that it builds on and is not there."""
        for needed in struct.origin, struct.right, struct.parent:
            if isinstance(needed, tuple) and needed[1] >= self.end(needed[0]):
                return needed
        return None

    def _add(self, client: int, struct: Struct) -> None:
        """Add what is not known of an item."""
        known = self.end(client)
        behind = struct.clock + struct.length
        if behind <= known:
            return
        if struct.clock > known:
            raise Malformed("it leaves something out")
        place = None if struct.content == GC else self._place(struct)
        if (
            struct.content != GC and struct.clock < known
        ):  # the library puts the rest of it behind what is there
            if place != self._find((client, known - 1)):
                raise Malformed("it says of an item anew where that is")
            if known - struct.clock in struct.halves:
                raise Malformed(_HALVED)
        self._extend(client, (known,), (place,))
        self.ends[client] = behind
        if place is None:
            return
        branch = place if isinstance(place, Branch) else place[0]
        if (struct.content == STRING) != (branch.kind == TEXT) and struct.content in (STRING, ANY):
            raise Malformed("it puts something into a list of another kind")
        if struct.halves:
            halves = self._halves.setdefault(client, array("q"))
            halves.extend(struct.clock + at for at in struct.halves if struct.clock + at > known)
        if struct.content == TYPE:
            self._branches[client, struct.clock] = Branch(struct.kind)
        self._put[branch] = count = self._put.get(branch, 0) + 1
        self.steps += self._order(client, struct, branch.count + count)

    def _order(self, client: int, struct: Struct, others: int) -> float:
        """How long it takes at most to find its place among others of its list."""
        origin = struct.origin
        base_end = self._base.end(client) if self._base else 0
        is_next = origin == (client, struct.clock - 1) and struct.clock > base_end
        if origin and is_next and origin not in self._followed:
            self._followed.add(origin)
            return 1  # nothing else was put behind that
        steps = float(others)
        if origin:
            steps += self._split(origin[0], origin[1] + 1)
        if struct.right:
            steps += self._split(*struct.right)
        return steps

    def _extend(self, client: int, starts: Iterable[int], places: Iterable[Place]) -> None:
        found = self._runs.get(client)
        if found is None:
            found = self._runs[client] = array("q"), []
        for start, place in zip(starts, places, strict=True):
            if not found[1] or found[1][-1] != place:
                found[0].append(start)
                found[1].append(place)

    def _place(self, struct: Struct) -> Place:
        """Where an item belongs, as the library will take it."""
        if struct.origin is None and struct.right is None:
            return self._in_parent(struct)
        places = [self._find(each) for each in (struct.origin, struct.right) if each]
        if places[0] != places[-1]:  # nor one that is garbage: it was of another list
            raise Malformed("it puts an item between those of two lists")
        return places[0]

    def _in_parent(self, struct: Struct) -> Place:
        parent, key = struct.parent, struct.key
        branch = self._roots[parent] if isinstance(parent, str) else self._branch(parent)
        if branch is None:
            return None
        if (branch.kind == MAP) != (key is not None):
            raise Malformed("it takes a list for a map, or a map for a list")
        return branch if key is None else (branch, key)

    def _branch(self, which: Id | None) -> Branch | None:
        found = self._branches.get(which) if which else None
        if found is None and self._base:
            found = self._base._branch(which)
        return found

    def _split(self, client: int, clock: int) -> float:
        """How long it takes to split what there is before and behind a clock."""
        if self._base and clock < self._base.end(client):
            return self._base._split(client, clock)
        halves = self._halves.get(client, ())
        at = bisect_left(halves, clock)
        if at < len(halves) and halves[at] == clock:
            raise Malformed(_HALVED)
        starts, places = self._runs.get(client, _NONE)
        run = bisect_right(starts, clock) - 1
        if run < 0 or places[run] is None or clock in (starts[run], self.end(client)):
            return 0
        end = starts[run + 1] if run + 1 < len(starts) else self.end(client)
        return (end - starts[run]) / _SPLIT_AT_ONCE

    def _find(self, which: Id) -> Place:
        client, clock = which
        if self._base and clock < self._base.end(client):
            return self._base._find(which)
        starts, places = self._runs[client]
        return places[bisect_right(starts, clock) - 1]
