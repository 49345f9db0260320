"""Which addresses are special."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.egress.addresses import OF_SERVICES, kind_of


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fd12:3456::1", "private"),
        ("fec0::1", "private"),
        ("100.64.0.1", "shared (carrier-grade NAT)"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("169.254.169.254", "cloud metadata"),
        ("169.254.170.2", "cloud metadata"),
        ("100.100.100.200", "cloud metadata"),
        ("168.63.129.16", "cloud metadata"),
        ("192.0.0.192", "cloud metadata"),
        ("fd00:ec2::254", "cloud metadata"),
        ("fd20:ce::254", "cloud metadata"),
        ("192.0.2.1", "documentation"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("198.18.0.1", "benchmark"),
        ("2001:2::1", "benchmark"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.1", "reserved"),
        ("192.0.0.8", "reserved"),
        ("2001:20::1", "reserved"),
        ("4000::1", "reserved"),
        ("::ffff:8.8.8.8", "an address inside another"),
        ("::ffff:0:8.8.8.8", "an address inside another"),
        ("::8.8.8.8", "an address inside another"),
        ("64:ff9b::8.8.8.8", "an address inside another"),
        ("64:ff9b::127.0.0.1", "an address inside another"),
        ("64:ff9b:1::8.8.8.8", "an address inside another"),
        ("2002:7f00:1::", "an address inside another"),
        ("2001:0:4136:e378::1", "an address inside another"),
        ("2600::5efe:127.0.0.1", "an address inside another"),
        ("2600::200:5efe:10.0.0.1", "an address inside another"),
        ("192.88.99.1", "an address inside another"),
        ("8.8.8.8", ""),
        ("1.1.1.1", ""),
        ("2606:4700:4700::1111", ""),
        ("172.32.0.1", ""),
        ("100.128.0.1", ""),
    ],
)
def test_an_address_is_of_its_kind(text: str, kind: str) -> None:
    assert kind_of(ip_address(text)) == kind


@given(st.ip_addresses(v=4))
def test_no_special_ipv4_address_passes_as_a_global_one(address: IPv4Address) -> None:
    special = (
        address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    )
    assert not (special or address.is_reserved) or kind_of(address)


@given(st.ip_addresses(v=6))
def test_no_special_ipv6_address_passes_as_a_global_one(address: IPv6Address) -> None:
    assert kind_of(address) or (address.is_global and (int(address) >> 125) == 1)


@given(st.ip_addresses(v=4))
def test_no_form_that_carries_another_address_passes(address: IPv4Address) -> None:
    inner = int(address)
    carriers = [
        0xFFFF << 32,
        0xFFFF << 48,
        int(IPv6Address("64:ff9b::")),
        int(IPv6Address("64:ff9b:1::")),
    ]
    forms = [IPv6Address(carrier | inner) for carrier in carriers]
    forms.append(IPv6Address((0x2002 << 112) | (inner << 80) | 1))
    assert all(kind_of(form) for form in forms)


def test_services_may_be_at_private_addresses_and_never_at_those_of_the_machine_or_a_cloud() -> (
    None
):
    assert kind_of(ip_address("10.1.2.3")) in OF_SERVICES
    for text in ("127.0.0.1", "169.254.169.254", "fe80::1", "224.0.0.1", "::ffff:10.0.0.1"):
        assert kind_of(ip_address(text)) not in OF_SERVICES
