"""Lines: safe to print, bounded, and read without trust."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.audit import SessionEntry, digest_of
from sandbox.audit.chain import (
    MAX_LINE_BYTES,
    MAX_TEXT,
    START,
    BadLine,
    Head,
    head_of,
    read_line,
    write_line,
)

TEXTS = [field.name for field in fields(SessionEntry) if field.name not in ("event", "checks")]
HOSTILE = [
    'x\n{"seq":2}',
    "a\r\nb",
    "\x1b]0;title\x07\x1b[2J",
    "\x00\x7f\x80\x9b",
    "\u2028\u2029\u202e",
    "\ud800 lone",
    '","hash":"' + "0" * 64 + '"}\n',
    "\U0001f600" * 100_000,
]


def line_of(entry: Any, after: Head | None = None) -> bytes:
    return write_line(after or Head(), 1.5, "serve", entry.kind, entry.values())


def sealed(text: bytes) -> bytes:
    """A line whose hash is right whatever it holds."""
    digest = hashlib.sha256(text + b"}").hexdigest().encode()
    return text + b',"hash":"' + digest + b'"}\n'


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_can_end_a_line_or_bring_a_control_character(field: str, text: str) -> None:
    data = line_of(SessionEntry(event="opened", **{field: text}))
    assert data.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in data[:-1])
    assert read_line(data).values[field] == text[:MAX_TEXT] + ("…" if len(text) > MAX_TEXT else "")


@given(st.text(), st.floats(), st.integers())
def test_whatever_is_recorded_is_read_again(text: str, moment: float, number: int) -> None:
    entry = SessionEntry(event="opened", name=text, checks=number)
    data = write_line(Head(), 1.0, "serve", "call", {**entry.values(), "duration_s": moment})
    assert read_line(data).seq == 1


def test_the_longest_entry_is_no_longer_than_a_line_may_be() -> None:
    texts: dict[str, Any] = dict.fromkeys(TEXTS, "\U0001f600" * 10_000)
    assert len(line_of(SessionEntry(event="opened", **texts))) <= MAX_LINE_BYTES


def test_each_line_names_the_hash_of_the_one_before() -> None:
    entry = SessionEntry(event="opened", session_id="s")
    first = line_of(entry)
    head = head_of(first, Head())
    second = line_of(entry, head)
    assert (read_line(first).seq, read_line(first).prev) == (1, START)
    assert (read_line(second).seq, read_line(second).prev) == (2, read_line(first).hash)
    assert head == read_line(first).head
    body = first[: first.rindex(b',"hash"')] + b"}"
    assert json.loads(body).get("hash") is None
    assert hashlib.sha256(body).hexdigest() == head.hash


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        b'{"hash":"x"}\n',
        b"\xff\xfe\x00\n",
        sealed(b""),
        sealed(b"[1"),
        sealed(b'{"seq":1'),
        sealed(b'{"seq":' + b"[" * 30_000 + b"]" * 30_000),
        sealed(b'{"seq":' + b"9" * 6_000 + b',"time":1,"slot":"s","kind":"k","prev":"p"'),
        sealed(b'{"seq":9007199254740993,"time":1,"slot":"s","kind":"k","prev":"p"'),
        sealed(b'{"seq":true,"time":1,"slot":"s","kind":"k","prev":"p"'),
        sealed(b'{"seq":1,"time":NaN,"slot":"s","kind":"k","prev":"p"'),
        sealed(b'{"seq":1,"time":' + b"9" * 400 + b',"slot":"s","kind":"k","prev":"p"'),
        sealed(b'{"seq":1,"time":1e999,"slot":"s","kind":"k","prev":"p"'),
        sealed(b'{"seq":1,"time":1,"slot":7,"kind":"k","prev":"p"'),
        sealed(b'{"seq":1,"time":1,"slot":"\xff","kind":"k","prev":"p"'),
    ],
)
def test_what_is_no_line_of_ours_is_refused_even_with_a_right_hash(data: bytes) -> None:
    with pytest.raises(BadLine):
        read_line(data)


def test_a_head_is_read_back_and_nothing_else_is() -> None:
    head = Head(7, "a" * 64)
    assert Head.decode(head.encode()) == head
    for wrong in (
        b"",
        head.encode()[:-1],
        head.encode() + b"\n",
        head.encode().upper(),
        b"\0" * 86,
    ):
        assert Head.decode(wrong) is None


def test_a_digest_depends_on_the_value_and_not_on_how_it_was_written() -> None:
    assert digest_of({"a": 1, "b": [True]}) == digest_of({"b": [True], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": "1"})
    assert len(digest_of({"a": "\ud800"})) == 64
    assert digest_of({"a": object()}) == ""
