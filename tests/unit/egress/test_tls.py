"""ClientHellos: what they say, and what is none."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.egress.tls import MAX_RECORDS, BadHello, ClientHello, HelloReader

from .hellos import client_hello, in_records, names, with_extensions

REAL = client_hello("api.example.com")


def read(data: bytes, size: int = 65_536) -> ClientHello | None:
    """What a hello says that comes in pieces of this size."""
    reader = HelloReader()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return next((found for piece in pieces if (found := reader.feed(piece))), None)


def test_a_real_clients_hello_names_its_server() -> None:
    assert read(REAL) == ClientHello("api.example.com", is_encrypted=False)


def test_a_hello_without_a_name_has_none() -> None:
    assert read(client_hello(None)) == ClientHello(None, is_encrypted=False)
    assert read(with_extensions()) == ClientHello(None, is_encrypted=False)


@given(st.integers(1, 600))
def test_a_hello_in_any_number_of_records_is_read_alike(size: int) -> None:
    assert read(in_records(REAL[5:], size)) == read(in_records(REAL[5:], size), 1) == read(REAL)


def test_what_follows_a_hello_in_records_of_its_own_is_not_looked_at() -> None:
    assert read(REAL + b"\x14\x03\x03\0\x01\x01") == read(REAL)


@given(st.integers(0, len(REAL) - 1))
def test_a_hello_that_is_not_complete_is_waited_for(length: int) -> None:
    assert read(REAL[:length]) is None


@pytest.mark.parametrize("kind", [0xFE0D, 0xFFCE])
def test_a_hidden_name_is_seen_beside_the_open_one(kind: int) -> None:
    hello = read(with_extensions(names(b"front.example.com"), (kind, b"\0")))
    assert hello == ClientHello("front.example.com", is_encrypted=True)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x02\x00\x00\x05\x01\0\0\x01\0",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x04\x02\0\0\0",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        with_extensions(names(b"a.example"), names(b"b.example")),
        with_extensions(names(b"a.example", b"b.example")),
        with_extensions(names(b"a.example", kind=1)),
        with_extensions(names()),
        with_extensions((0, b"\0\x05\0\0\x09abc")),
        with_extensions(names(b"\xff.example")),
        with_extensions(names(b"a.example"), after=b"more"),
        in_records(REAL[5:] + b"\x01\0\0\0", 16384),
    ],
)
def test_what_is_no_hello_or_says_two_things_is_refused(data: bytes) -> None:
    with pytest.raises(BadHello):
        read(data)


def test_a_hello_in_a_flood_of_records_is_refused() -> None:
    flood = in_records(b"\x01\0\x7f\xff" + bytes(0x7FFF), 1)
    with pytest.raises(BadHello, match=f"more than {MAX_RECORDS} records"):
        read(flood, 1)


def test_time_grows_with_the_bytes_of_a_hello_and_no_faster() -> None:
    def took(size: int) -> float:
        message = b"\x01\0\x7f\xff" + bytes(size)
        data = in_records(message, 64)
        began = time.process_time()
        read(data, 1)
        return time.process_time() - began

    took(1000)
    small, large = min(took(4000) for _ in range(3)), min(took(32_000) for _ in range(3))
    assert large < 8 * small * 2 + 0.01


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    for start in (b"", b"\x16\x03\x01", REAL[:60]):
        with suppress(BadHello):
            read(start + data)
