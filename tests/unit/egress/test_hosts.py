"""Hosts in their one form."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.egress.hosts import BadHost, parse_authority, parse_host, parse_port
from sandbox.policy.destinations import matches


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com.", "example.com"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("my_service.example.com", "my_service.example.com"),
        ("model-server", "model-server"),
        ("1.2.3.4.example", "1.2.3.4.example"),
    ],
)
def test_a_name_has_one_form(text: str, name: str) -> None:
    assert parse_host(text).text == name
    assert parse_host(text).address is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1.", "192.0.2.1"),
        ("[::1]", "::1"),
        ("[2001:DB8::0:1]", "2001:db8::1"),
    ],
)
def test_an_address_is_known_as_one(text: str, address: str) -> None:
    assert parse_host(text).address == ip_address(address)


@pytest.mark.parametrize(
    "text",
    [
        *("2130706433", "0x7f000001", "0x7f.1", "127.1", "127.0.1", "0177.0.0.1", "127.0.0.01"),
        *("127.0.0.0x1", "1.2.3.4.5", "256.0.0.1", "0x", "example.0x1f", "1.2.3.", "08.0.0.1"),
        *("\uff11\uff12\uff17.1", "127\u30020\u30020\u30021.5"),
    ],
)
def test_addresses_in_odd_forms_are_no_hosts(text: str) -> None:
    with pytest.raises(BadHost):
        parse_host(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a..b", ".a", "-a.example", "a-.example", "a b.example", "a\0.example"),
        *("a\r\n.example", "user@example.com", "example.com/x", "example.com?x", "example.com#x"),
        *("exa%6dple.com", "example.com\\x", "[::1", "::1", "[fe80::1%25eth0]", "[1.2.3.4]", "a:b"),
        *("*.example.com", "x" * 64 + ".example", "a." * 130 + "b", "exam\u200bple..com"),
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(BadHost):
        parse_host(text)


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "-1", "+80", "80 ", "8O", "٨٠", "000080", "1e3"]
)
def test_a_port_is_plain_digits_within_bounds(text: str) -> None:
    with pytest.raises(BadHost):
        parse_port(text)


def test_an_authority_is_a_host_and_a_port() -> None:
    assert parse_authority("[::1]:8080") == (parse_host("[::1]"), 8080)
    assert parse_authority("example.com", 80) == (parse_host("example.com"), 80)
    for text in ("example.com", "example.com:", "[::1]80", "example.com:80:80", ":80"):
        with pytest.raises(BadHost):
            parse_authority(text)


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("example.com", "example.com", True),
        ("example.com", "www.example.com", False),
        ("example.com", "notexample.com", False),
        ("example.com", "example.com.evil.example", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "notexample.com", False),
        ("*.example.com", ".example.com", False),
    ],
)
def test_a_pattern_matches_whole_labels(pattern: str, name: str, is_match: bool) -> None:
    assert matches(pattern, name) is is_match


@given(st.text(max_size=300))
def test_no_text_is_a_host_in_two_ways(text: str) -> None:
    try:
        host = parse_host(text)
    except BadHost:
        return
    assert host.text.isascii()
    assert host.text == host.text.lower()
    if host.address is None:
        assert parse_host(host.text) == host
        assert not host.text.rpartition(".")[2].isdigit()
    else:
        assert parse_host(str(host)) == host
