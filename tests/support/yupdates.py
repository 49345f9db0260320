"""Updates of Yjs documents, good and bad, byte by byte."""

from __future__ import annotations

from sandbox.collaboration.varints import varint

CLIENT = 5


def text(value: str) -> bytes:
    """A text behind its length."""
    data = value.encode()
    return varint(len(data)) + data


def structs(*items: bytes, client: int = CLIENT, clock: int = 0, deletions: bytes = b"\0") -> bytes:
    """An update of one client."""
    made = varint(1) + varint(len(items)) + varint(client) + varint(clock)
    return made + b"".join(items) + deletions


def in_root(content: int, payload: bytes, root: str = "cells") -> bytes:
    """An item at the beginning of a root."""
    return bytes((content,)) + b"\x01" + text(root) + payload


def json_items(*values: bytes, root: str = "cells") -> bytes:
    """An item of JSON values in a root."""
    return in_root(8, varint(len(values)) + b"".join(values), root)


def nested_lists(depth: int) -> bytes:
    """JSON lists in each other, in the binary encoding."""
    return b"\x75\x01" * depth + b"\x7e"


def nested_arrays(depth: int, kind: int = 0) -> bytes:
    """Shared arrays, maps or texts in each other, as one update."""
    first = in_root(7, bytes((kind,)))
    inner = b"\x27" if kind == 1 else b"\x07"
    key = text("k") if kind == 1 else b""
    others = [
        inner + b"\x00" + varint(CLIENT) + varint(at) + key + bytes((kind,))
        for at in range(depth - 1)
    ]
    return structs(first, *others)


TOO_LARGE = b"\xff\xff\xff\xff\x0f"

HOSTILE = {
    "empty": b"",
    "no update": b"abcdefgh",
    "endless number": b"\xff" * 40,
    "many clients": TOO_LARGE + b"\0",
    "many structs": b"\x01" + TOO_LARGE + b"\x05\0",
    "many deletions": b"\0\x01\x05" + TOO_LARGE,
    "long text": structs(in_root(4, TOO_LARGE)),
    "many values": structs(in_root(8, TOO_LARGE)),
    "long list": structs(json_items(b"\x75" + TOO_LARGE)),
    "deep lists": structs(json_items(nested_lists(200_000))),
    "deep objects": structs(json_items((b"\x76\x01" + text("k")) * 200_000 + b"\x7e")),
    "foreign root": structs(in_root(4, text("x"), "elsewhere")),
    "subdocument": structs(in_root(9, text("guid") + b"\x7e")),
    "embed": structs(in_root(5, text("{}"))),
    "format": structs(in_root(6, text("bold") + text("true"))),
    "xml": structs(in_root(7, b"\x03" + text("script"))),
    "weak link": structs(in_root(7, b"\x07\0\0")),
    "move": structs(in_root(11, b"\0\0\0")),
    "unknown value": structs(json_items(b"\x00")),
    "clock at its end": structs(b"\x00" + TOO_LARGE),
    "much deleted": structs(in_root(1, TOO_LARGE)),
    "bad UTF-8": structs(in_root(4, b"\x02\xff\xfe")),
    "a tail": structs(json_items(b"\x7e")) + b"\0",
    "client twice": b"\x02" + structs(json_items(b"\x7e"))[1:-1] + structs(json_items(b"\x7e"))[1:],
    "deep arrays": nested_arrays(100_000),
    "deep maps": nested_arrays(30_000, 1),
    "deep texts": nested_arrays(30_000, 2),
    "arrays a little too deep": nested_arrays(40),
    "many cells": structs(json_items(*[b"\x7e"] * 20_000)),
    "many parts": structs(json_items(*[b"\x7e"] * 300_000)),
}
"""Updates that are refused, each with the document intact."""

WAITING = {
    "begins too late": structs(json_items(b"\x7e"), clock=7),
    "parent is not there": structs(b"\x07\x00" + varint(99) + varint(3) + b"\x00"),
    "origin is not there": structs(b"\x88" + varint(99) + varint(3) + b"\x01\x7e"),
    "deletes what is not there": b"\0\x01\x63\x01\x05\x03",
    "a gap": structs(b"\x0a\x05", json_items(b"\x7e")),
}
"""Updates that build on what is not there."""
