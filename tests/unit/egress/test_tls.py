"""ClientHellos: what they say, and what is none."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.egress.tls import BadHello, ClientHello, read_client_hello

from .hellos import client_hello, in_records, names, with_extensions

REAL = client_hello("api.example.com")


def test_a_real_clients_hello_names_its_server() -> None:
    assert read_client_hello(REAL) == ClientHello("api.example.com", is_encrypted=False)


def test_a_hello_without_a_name_has_none() -> None:
    assert read_client_hello(client_hello(None)) == ClientHello(None, is_encrypted=False)
    assert read_client_hello(with_extensions()) == ClientHello(None, is_encrypted=False)


@given(st.integers(1, 600))
def test_a_hello_in_any_number_of_records_is_read_alike(size: int) -> None:
    assert read_client_hello(in_records(REAL[5:], size)) == read_client_hello(REAL)


@given(st.integers(0, len(REAL) - 1))
def test_a_hello_that_is_not_complete_is_waited_for(length: int) -> None:
    assert read_client_hello(REAL[:length]) is None


@pytest.mark.parametrize("kind", [0xFE0D, 0xFFCE])
def test_a_hidden_name_is_seen_beside_the_open_one(kind: int) -> None:
    hello = read_client_hello(with_extensions(names(b"front.example.com"), (kind, b"\0")))
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
        read_client_hello(data)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    for start in (b"", b"\x16\x03\x01", REAL[:60]):
        with suppress(BadHello):
            read_client_hello(start + data)
