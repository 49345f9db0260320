"""Updates of Yjs documents made at random, most of them nearly right."""

from __future__ import annotations

import random

from sandbox.collaboration.varints import varint

from .yupdates import text

CLIENTS = (5, 2**53 - 2)
"""Below and above that of a document, for the order of clients decides who goes first."""
KEYS = ("id", "source", "outputs", "metadata", "k")
VALUES = (b"\x7e", b"\x78", b"\x77" + text("s"), b"\x75\x01\x7e", b"\x76\x01" + text("k") + b"\x7f")
TEXTS = ("abc", "é", "😀😀", "x" * 20)


def random_update(rng: random.Random, state: dict[int, int]) -> bytes:
    """An update of one or two clients, for a document in this state."""
    maker = _Maker(rng, dict(state))
    clients = rng.sample(CLIENTS, rng.choice((1, 1, 1, 2)))
    sections = b"".join(maker.section(client, state.get(client, 0)) for client in clients)
    return varint(len(clients)) + sections + maker.deletions()


class _Maker:
    def __init__(self, rng: random.Random, ends: dict[int, int]) -> None:
        self.rng = rng
        self.ends = ends
        self.types: dict[tuple[int, int], int] = {}

    def section(self, client: int, known: int) -> bytes:
        """What one client makes; sometimes from before what is known on, or behind it."""
        rng = self.rng
        clock = known
        if rng.random() < 0.2:
            clock = max(0, known - rng.randint(1, 3))
        elif rng.random() < 0.02:
            clock += 1
        made = varint(client) + varint(clock)
        count = rng.randint(1, 6)
        for _ in range(count):
            item, length = self._item(client, clock)
            made += item
            clock += length
            self.ends[client] = max(clock, self.ends.get(client, 0))
        return varint(count) + made

    def deletions(self) -> bytes:
        """What it deletes, twice at times."""
        rng = self.rng
        if not self.ends or rng.random() < 0.5:
            return b"\0"
        client = rng.choice(sorted(self.ends))
        top = max(self.ends[client], 1)
        ranges = b""
        count = rng.randint(1, 3)
        for _ in range(count):
            start = rng.randrange(top)
            ranges += varint(start) + varint(rng.randint(0, max(1, top - start)))
        return b"\1" + varint(client) + varint(count) + ranges

    def _id(self, client: int, clock: int) -> bytes:
        """Something that is there, most of the time near to the item that names it."""
        rng = self.rng
        if clock and rng.random() < 0.5:
            return varint(client) + varint(max(0, clock - rng.randint(1, 8)))
        client = rng.choice([*sorted(self.ends), client])
        top = self.ends.get(client, 0)
        return varint(client) + varint(
            rng.randrange(top + 1) if rng.random() < 0.02 or not top else rng.randrange(top)
        )

    def _item(self, client: int, clock: int) -> tuple[bytes, int]:
        rng = self.rng
        content = rng.choice((0, 1, 4, 4, 7, 7, 7, 8, 8, 8))
        if content == 0:
            length = rng.randint(0, 5) if rng.random() < 0.1 else rng.randint(1, 5)
            return b"\0" + varint(length), length
        info, body = content, b""
        if rng.random() < 0.6:
            info |= 0x80
            body += self._id(client, clock)
        if rng.random() < 0.3:
            info |= 0x40
            body += self._id(client, clock)
        if not info & 0xC0:
            key = rng.choice(KEYS)
            if rng.random() < 0.5:
                root = rng.choice(("cells", "meta", "state"))
                body += b"\1" + text(root)
                is_keyed = root != "cells"
            else:
                kind = 1
                if self.types and rng.random() < 0.7:
                    (named, at), kind = rng.choice(list(self.types.items()))
                    body += b"\0" + varint(named) + varint(at)
                else:
                    body += b"\0" + self._id(client, clock)
                    kind = rng.choice((0, 1, 2))
                is_keyed = kind == 1
                if kind == 2 and content == 8:
                    content, info = 4, info & ~31 | 4
            if is_keyed != (rng.random() < 0.03):
                info |= 0x20
                body += text(key)
        elif rng.random() < 0.3:
            info |= 0x20
        payload, length = self._content(content, client, clock)
        return bytes((info,)) + body + payload, length

    def _content(self, content: int, client: int, clock: int) -> tuple[bytes, int]:
        rng = self.rng
        if content == 1:
            length = rng.randint(1, 4)
            return varint(length), length
        if content == 4:
            value = rng.choice(TEXTS)
            return text(value), len(value.encode("utf-16-le")) // 2
        if content == 7:
            kind = rng.choice((0, 1, 2))
            self.types[client, clock] = kind
            return bytes((kind,)), 1
        values = [rng.choice(VALUES) for _ in range(rng.randint(1, 3))]
        return varint(len(values)) + b"".join(values), len(values)
