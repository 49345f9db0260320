"""SOCKS5's two messages."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.egress.hosts import BadHost, parse_host
from sandbox.egress.socks import BadSocks, read_greeting, read_request
from sandbox.policy.destinations import Host

NAMED = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"


def test_a_greeting_offers_a_method_without_a_login() -> None:
    assert read_greeting(b"\x05\x02\x02\x00rest") == 4
    assert read_greeting(b"\x05\x02\x00") is None


def test_a_request_names_a_host_or_an_address() -> None:
    by_name = parse_host("example.com")
    assert read_request(NAMED + b"more") == (by_name, 443, len(NAMED))
    by_ipv4 = Host("127.0.0.1", ip_address("127.0.0.1"))
    assert read_request(b"\x05\x01\0\x01\x7f\0\0\x01\0\x50") == (by_ipv4, 80, 10)
    by_ipv6 = Host("::1", ip_address("::1"))
    assert read_request(b"\x05\x01\0\x04" + bytes(15) + b"\x01\0\x50") == (by_ipv6, 80, 22)


@given(st.integers(0, len(NAMED) - 1))
def test_a_request_that_is_not_complete_is_waited_for(length: int) -> None:
    assert read_request(NAMED[:length]) is None


@pytest.mark.parametrize("data", [b"\x04\x01", b"\x05\x01\x02", b"\x05\x00"])
def test_another_version_or_a_login_is_refused(data: bytes) -> None:
    with pytest.raises(BadSocks):
        read_greeting(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x05\x02\0\x01\x7f\0\0\x01\0\x50",  # BIND
        b"\x05\x03\0\x01\x7f\0\0\x01\0\x50",  # UDP
        b"\x05\x01\x01\x01\x7f\0\0\x01\0\x50",
        b"\x05\x01\0\x05\x7f\0\0\x01\0\x50",
    ],
)
def test_anything_but_connect_is_refused(data: bytes) -> None:
    with pytest.raises(BadSocks):
        read_request(data)


@pytest.mark.parametrize(
    "name",
    [b"2130706433", b"0x7f.1", b"a\r\nb", b"a\0b", b"", b"user@host.example", b"\xff.example"],
)
def test_a_name_that_could_be_read_in_two_ways_is_refused(name: bytes) -> None:
    with pytest.raises(BadHost):
        read_request(b"\x05\x01\0\x03" + bytes([len(name)]) + name + b"\0\x50")


def test_port_zero_is_none() -> None:
    with pytest.raises(BadHost):
        read_request(NAMED[:-2] + b"\0\0")


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    for read in (read_greeting, read_request):
        with suppress(BadSocks, BadHost):
            read(data)
