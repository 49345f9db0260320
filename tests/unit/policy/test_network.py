"""A rule says itself what it means for a request."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from sandbox.policy.destinations import Host, Request, Service, Target
from sandbox.policy.network import AllowRule, DenyRule

API = AllowRule(domain="api.example.com")
NET = AllowRule(cidr="198.51.100.0/24")
MODEL = AllowRule(address="model-server")
INDEX = AllowRule(service="package-index")
SECRET = AllowRule(domain="api.example.com", secret="key", ports=(8443,))

ADDRESS = Host("198.51.100.7", ip_address("198.51.100.7"))
SERVICES = {"package-index": Service(frozenset({Target("index.example", 443)}))}
ADDRESSES = {"model-server": ip_address("127.0.0.1")}


@pytest.mark.parametrize(
    ("rule", "host"),
    [
        (API, Host("api.example.com")),
        (NET, ADDRESS),
        (MODEL, Host("model-server")),
        (MODEL, Host("127.0.0.1", ip_address("127.0.0.1"))),
        (INDEX, Host("index.example")),
    ],
)
def test_a_rule_is_about_its_own_place_and_no_other(rule: AllowRule, host: Host) -> None:
    for other in (API, NET, MODEL, INDEX):
        found = other.is_about(Request(host, 443), SERVICES, ADDRESSES)
        assert found == (other is rule)


def test_a_service_or_an_address_that_nobody_named_is_no_place() -> None:
    assert not INDEX.is_about(Request(Host("index.example"), 443), {}, {})
    assert not MODEL.is_about(Request(Host("model-server"), 443), {}, {})


def test_a_name_is_not_denied_by_a_network_nor_an_address_by_a_domain() -> None:
    net, name = DenyRule(cidr="198.51.100.0/24"), DenyRule(domain="*.example.com", ports=(443,))
    assert net.denies(ADDRESS, 1)
    assert not net.denies(Host("198.51.100.7.example"), 1)
    assert name.denies(Host("api.example.com"), 443)
    assert not name.denies(Host("api.example.com"), 80)
    assert not name.denies(ADDRESS, 443)


def test_a_rule_with_a_secret_chooses_the_port_where_none_was_written() -> None:
    asked = Request(Host("api.example.com"), 80, method="GET", path="/", has_port=False)
    assert SECRET.port_for(asked) == 8443
    assert SECRET.objection(asked, {}) is None
    written = Request(Host("api.example.com"), 80, method="GET", path="/")
    assert SECRET.port_for(written) == 80
    assert "on port 8443 only" in str(SECRET.objection(written, {}))


def test_only_a_tunnel_to_a_name_must_say_that_name_again() -> None:
    assert API.is_by_name(Request(Host("api.example.com"), 443))
    assert not NET.is_by_name(Request(ADDRESS, 443))
    assert not MODEL.is_by_name(Request(Host("model-server"), 443))
