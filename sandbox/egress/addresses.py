"""Which addresses are special: the built-in deny list, and it is pure.

An address that is not a plain global unicast one has a *kind*. Most kinds are refused whatever a
policy says; :data:`OF_SERVICES` are those on which an operator's own services may answer. Forms
that carry one address inside another (mapped, NAT64, 6to4 and their like) are refused as such:
what they lead to is decided by some router, not by what they look like.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

from sandbox.policy.destinations import Address

Network = IPv4Network | IPv6Network

OWN = "one of the controller's own addresses"
RESERVED = "reserved"

_PRIVATE = "private"
_DOCUMENTATION = "documentation"
_BENCHMARK = "benchmark"
_SHARED = "shared (carrier-grade NAT)"
_LOOPBACK = "loopback"
_LINK_LOCAL = "link-local"
_METADATA = "cloud metadata"
_UNSPECIFIED = "unspecified"
_MULTICAST = "multicast"
_TRANSLATED = "an address inside another"

OF_SERVICES = frozenset({_PRIVATE, _DOCUMENTATION, _BENCHMARK, _SHARED})
"""Kinds of address at which a service of the operator's own configuration may be."""

# The first that holds the address counts. IANA's registries of special-purpose addresses, and the
# addresses at which clouds hand out credentials.
_TABLE: tuple[tuple[str, str], ...] = (
    ("169.254.169.254/32", _METADATA),
    ("169.254.170.0/24", _METADATA),
    ("100.100.100.200/32", _METADATA),
    ("168.63.129.16/32", _METADATA),
    ("192.0.0.192/32", _METADATA),
    ("fd00:ec2::/32", _METADATA),
    ("fd20:ce::254/128", _METADATA),
    ("255.255.255.255/32", "broadcast"),
    ("0.0.0.0/8", _UNSPECIFIED),
    ("10.0.0.0/8", _PRIVATE),
    ("100.64.0.0/10", _SHARED),
    ("127.0.0.0/8", _LOOPBACK),
    ("169.254.0.0/16", _LINK_LOCAL),
    ("172.16.0.0/12", _PRIVATE),
    ("192.0.0.0/24", RESERVED),
    ("192.0.2.0/24", _DOCUMENTATION),
    ("192.31.196.0/24", RESERVED),
    ("192.52.193.0/24", RESERVED),
    ("192.88.99.0/24", _TRANSLATED),
    ("192.168.0.0/16", _PRIVATE),
    ("192.175.48.0/24", RESERVED),
    ("198.18.0.0/15", _BENCHMARK),
    ("198.51.100.0/24", _DOCUMENTATION),
    ("203.0.113.0/24", _DOCUMENTATION),
    ("224.0.0.0/4", _MULTICAST),
    ("240.0.0.0/4", RESERVED),
    ("::/128", _UNSPECIFIED),
    ("::1/128", _LOOPBACK),
    ("::ffff:0:0/96", _TRANSLATED),  # IPv4-mapped
    ("::ffff:0:0:0/96", _TRANSLATED),  # IPv4-translated (SIIT)
    ("::/96", _TRANSLATED),  # IPv4-compatible
    ("64:ff9b::/96", _TRANSLATED),  # NAT64
    ("64:ff9b:1::/48", _TRANSLATED),  # NAT64, local use
    ("2001::/32", _TRANSLATED),  # Teredo
    ("2001:2::/48", _BENCHMARK),
    ("2001:db8::/32", _DOCUMENTATION),
    ("2001::/23", RESERVED),
    ("2002::/16", _TRANSLATED),  # 6to4
    ("2620:4f:8000::/48", RESERVED),
    ("3fff::/20", _DOCUMENTATION),
    ("fc00::/7", _PRIVATE),
    ("fe80::/10", _LINK_LOCAL),
    ("fec0::/10", _PRIVATE),
    ("ff00::/8", _MULTICAST),
)
_NETWORKS: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(text), kind) for text, kind in _TABLE
)
_BY_VERSION = {
    version: tuple(pair for pair in _NETWORKS if pair[0].version == version) for version in (4, 6)
}
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})


def kind_of(address: Address) -> str:
    """What is special about an address; empty for a plain global unicast one."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return _LINK_LOCAL
    for network, kind in _BY_VERSION[address.version]:
        if address in network:
            return kind
    if isinstance(address, IPv6Address):
        if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
            return _TRANSLATED
        if address not in _GLOBAL_IPV6:
            return RESERVED
    return "" if address.is_global else RESERVED
