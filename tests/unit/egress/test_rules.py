"""What a policy says about a request: the rule that decides, and why."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from sandbox.egress.hosts import parse_authority
from sandbox.egress.rules import (
    DEFAULT_RULE,
    NONE_RULE,
    OFF_RULE,
    NetworkRules,
    Verdict,
    in_words,
    verdict,
    verdict_on_address,
)
from sandbox.policy.destinations import Address, Request, Service, Target
from sandbox.policy.network import AllowRule, DenyRule, NetworkPolicy

INDEX = {"package-index": Service(frozenset({Target("index.example", 443)}))}


def rules(*allow: AllowRule, deny: tuple[DenyRule, ...] = (), **more: Any) -> NetworkRules:
    """The rules of a session."""
    return NetworkRules("test", NetworkPolicy(allow=allow, deny=deny), **more)


def tunnel(authority: str) -> Request:
    """A request for a tunnel."""
    return Request(*parse_authority(authority))


def plain(url: str, method: str = "GET") -> Request:
    """A plain HTTP request."""
    authority, slash, path = url.removeprefix("http://").partition("/")
    host, port = parse_authority(authority, 80)
    return Request(host, port, method, slash + path or "/", has_port=":" in authority)


def judged(
    held: NetworkRules, request: Request, services: dict[str, Service] | None = None
) -> Verdict:
    """The verdict on a request."""
    return verdict(held, request, INDEX if services is None else services)


API = AllowRule(domain="api.example.com")
BELOW = AllowRule(domain="*.data.example.org", ports=(443, 8443))
FILES = AllowRule(domain="files.example.com", http=True, methods=("GET",), paths=("/v1/*", "/one"))
NETS = AllowRule(cidr="198.51.100.0/24", ports=(5432,))
VENDOR = AllowRule(domain="api.vendor.example.com", secret="key", prefix="Bearer ")
MODEL = AllowRule(address="model-server", ports=(8080,), http=True)
PIP = AllowRule(service="package-index")
ALL = rules(
    *(API, BELOW, FILES, NETS, VENDOR, MODEL, PIP),
    addresses={"model-server": ip_address("127.0.0.1")},
)


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        (tunnel("api.example.com:443"), 0),
        (tunnel("API.Example.COM.:443"), 0),
        (tunnel("x.y.data.example.org:8443"), 1),
        (plain("http://files.example.com/v1/a"), 2),
        (plain("http://files.example.com/one"), 2),
        (tunnel("198.51.100.7:5432"), 3),
        (plain("http://api.vendor.example.com/v1"), 4),
        (plain("http://api.vendor.example.com:443/v1"), 4),
        (tunnel("model-server:8080"), 5),
        (plain("http://model-server:8080/v1"), 5),
        (plain("http://127.0.0.1:8080/v1"), 5),
        (tunnel("index.example:443"), 6),
    ],
)
def test_a_request_is_allowed_by_the_rule_that_names_it(request_: Request, rule: int) -> None:
    found = judged(ALL, request_)
    assert found.allowed
    assert found.rule.startswith(f"allow[{rule}] ")


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (tunnel("other.example.com:443"), "no allow rule names other.example.com:443"),
        (tunnel("api.example.com.evil.example:443"), "no allow rule names"),
        (tunnel("notapi.example.com:443"), "no allow rule names"),
        (tunnel("data.example.org:443"), "no allow rule names"),
        (tunnel("xdata.example.org:443"), "no allow rule names"),
        (tunnel("api.example.com:8443"), "on port 443 only"),
        (plain("http://api.example.com:443/"), "use https://"),
        (plain("http://files.example.com/v1/a", "POST"), "not POST"),
        (plain("http://files.example.com/v2"), "not this path"),
        (plain("http://files.example.com/v1/../v2"), "not this path"),
        (plain("http://files.example.com/v1/%2e%2e/v2"), "not this path"),
        (plain("http://files.example.com/v1/..\\v2"), "not this path"),
        (plain("http://files.example.com/v1//v2"), "not this path"),
        (plain("http://files.example.com/v1/./x"), "not this path"),
        (plain("http://files.example.com/v1/;x"), "not this path"),
        (plain("http://files.example.com/one/more"), "not this path"),
        (tunnel("api.vendor.example.com:443"), "in plain HTTP only"),
        (tunnel("198.51.101.7:5432"), "no allow rule names 198.51.101.7:5432"),
        (tunnel("model-server:1"), "on port 8080 only"),
        (tunnel("index.example:80"), "does not use this port"),
        (plain("http://index.example/"), "does not use this port"),
    ],
)
def test_what_no_rule_allows_is_denied_with_what_came_closest(request_: Request, why: str) -> None:
    found = judged(ALL, request_)
    assert not found.allowed
    assert found.rule in (DEFAULT_RULE, "built-in: documentation")
    if found.rule == DEFAULT_RULE:
        assert why in found.reason
        assert "domain api.example.com" in found.remedy


@pytest.mark.parametrize(
    ("authority", "kind"),
    [
        ("127.0.0.1:22", "loopback"),
        ("localhost:22", "loopback"),
        ("db.localhost:22", "loopback"),
        ("169.254.169.254:80", "cloud metadata"),
        ("10.0.0.1:80", "private"),
        ("[::1]:80", "loopback"),
        ("[::ffff:10.0.0.1]:80", "an address inside another"),
    ],
)
def test_the_built_in_list_is_named_where_it_says_more(authority: str, kind: str) -> None:
    assert judged(ALL, tunnel(authority)).rule == f"built-in: {kind}"


def test_a_deny_rule_wins_whatever_allows_it() -> None:
    held = rules(
        AllowRule(domain="*.example.com", ports=(443, 444)),
        AllowRule(cidr="198.51.100.0/24"),
        deny=(
            DenyRule(domain="*.private.example.com"),
            DenyRule(domain="half.example.com", ports=(444,)),
            DenyRule(cidr="198.51.100.128/25"),
        ),
    )
    assert judged(held, tunnel("a.private.example.com:443")).rule.startswith("deny[0] ")
    assert judged(held, tunnel("half.example.com:444")).rule.startswith("deny[1] ")
    assert judged(held, tunnel("half.example.com:443")).allowed
    assert judged(held, tunnel("198.51.100.200:443")).rule.startswith("deny[2] ")
    assert judged(held, tunnel("198.51.100.1:443")).allowed


def test_without_allow_rules_or_after_it_was_taken_away_nothing_is_allowed() -> None:
    assert judged(rules(), tunnel("api.example.com:443")).rule == NONE_RULE
    assert judged(replace(ALL, is_off=True), tunnel("api.example.com:443")).rule == OFF_RULE
    assert in_words(replace(ALL, is_off=True)) == ()


def test_an_added_deny_rule_counts_like_one_of_the_policy() -> None:
    held = replace(ALL, added=(DenyRule(domain="api.example.com"),))
    assert judged(held, tunnel("api.example.com:443")).rule == "tightened[0] domain api.example.com"


def test_a_service_whose_hosts_are_not_known_says_why_and_opens_nothing() -> None:
    problem = {"package-index": Service(problem="the index does not answer")}
    found = judged(rules(PIP), tunnel("index.example:443"), problem)
    assert (found.allowed, found.rule) == (False, "allow[0] service package-index")
    assert found.reason == "the index does not answer"


def test_an_address_that_the_operator_did_not_name_says_so() -> None:
    found = judged(rules(MODEL), plain("http://model-server:8080/"))
    assert not found.allowed
    assert "'model-server'" in found.reason


@pytest.mark.parametrize(
    ("rule", "address", "decided"),
    [
        (API, "93.184.215.14", ""),
        (API, "10.0.0.1", "built-in: private"),
        (API, "127.0.0.1", "built-in: loopback"),
        (API, "169.254.169.254", "built-in: cloud metadata"),
        (API, "::ffff:93.184.215.14", "built-in: an address inside another"),
        (API, "203.0.113.7", "built-in: documentation"),
        (API, "93.184.215.99", "built-in: one of the controller's own addresses"),
        (API, "93.184.216.1", "deny[0] cidr 93.184.216.0/24"),
        (PIP, "10.0.0.1", ""),
        (PIP, "203.0.113.7", ""),
        (PIP, "127.0.0.1", "built-in: loopback"),
        (PIP, "169.254.169.254", "built-in: cloud metadata"),
        (PIP, "fe80::1", "built-in: link-local"),
        (PIP, "10.0.0.99", "built-in: one of the controller's own addresses"),
        (MODEL, "127.0.0.1", ""),
        (NETS, "198.51.100.7", "built-in: documentation"),
    ],
)
def test_every_address_of_an_allowed_host_is_judged(
    rule: AllowRule, address: str, decided: str
) -> None:
    held = rules(rule, deny=(DenyRule(cidr="93.184.216.0/24"),))
    own: set[Address] = {ip_address("93.184.215.99"), ip_address("10.0.0.99")}
    given = Verdict(True, "allow[0]", "", allow=rule)
    found = verdict_on_address(
        held, tunnel("some.example:443"), given, ip_address(address), own.__contains__
    )
    assert (found.allowed, found.rule) == ((True, "allow[0]") if not decided else (False, decided))
