"""What a policy says about a request to go out: pure, and the only place that says so.

A request is judged three times, each before anything is sent to where it leads: by what it names
(:func:`verdict`), by every address that its name stands for (:func:`verdict_on_address`), and by
what the first bytes of its connection say (``sandbox.egress.tunnel``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from sandbox.egress.addresses import OF_SERVICES, OWN, Address, kind_of
from sandbox.egress.hosts import Host, matches
from sandbox.policy.network import AllowRule, DenyRule, NetworkPolicy

NONE_RULE = "network: none"
OFF_RULE = "tightened: network none"
DEFAULT_RULE = "default: no rule allows it"
MAX_NAMED = 6


@dataclass(frozen=True, slots=True)
class Request:
    """Where a client wants to go.

    Args:
        host: The host as it named it.
        port: The port.
        method: Of a plain HTTP request; empty for a tunnel, whose inside is not seen.
        path: Of a plain HTTP request, without its query.
        has_port: Whether the port was written, not implied by ``http://``.
    """

    host: Host
    port: int
    method: str = ""
    path: str = ""
    has_port: bool = True

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_http(self) -> bool:
        """Whether it is a plain HTTP request."""
        return bool(self.method)


@dataclass(frozen=True, slots=True)
class Target:
    """A host of a service, as the operator's configuration names it."""

    host: str
    port: int
    is_plain: bool = False
    """Whether plain HTTP is spoken there."""


@dataclass(frozen=True, slots=True)
class Service:
    """What is known of a named service.

    Args:
        targets: Its hosts.
        problem: Why they are not known; empty when they are.
    """

    targets: frozenset[Target] = frozenset()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided, by which rule, and why.

    Args:
        allowed: Whether the request may go on.
        rule: What decided.
        reason: Why, in words.
        remedy: What to do about a refusal; empty when nothing can be done.
        allow: The rule that allows it.
    """

    allowed: bool
    rule: str
    reason: str
    remedy: str = ""
    allow: AllowRule | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """All that decides about one session's requests.

    Args:
        policy_name: The name of its policy.
        network: What that policy says.
        added: Deny rules that were added while the session lives.
        is_off: Whether its network was taken away altogether.
        addresses: What the operator's settings name, and no policy can.
    """

    policy_name: str
    network: NetworkPolicy
    added: tuple[DenyRule, ...] = ()
    is_off: bool = False
    addresses: Mapping[str, Address] = field(default_factory=dict[str, Address])

    @property
    def services(self) -> frozenset[str]:
        """The services that its rules name."""
        return frozenset(rule.service for rule in self.network.allow if rule.service)

    def denials(self) -> list[tuple[str, DenyRule]]:
        """Every deny rule with its name."""
        own = [(f"deny[{i}] {rule}", rule) for i, rule in enumerate(self.network.deny)]
        return own + [(f"tightened[{i}] {rule}", rule) for i, rule in enumerate(self.added)]


def verdict(rules: Rules, request: Request, services: Mapping[str, Service]) -> Verdict:
    """Judge a request by what it names. Nothing has been resolved or connected before.

    Args:
        rules: What decides.
        request: Where a client wants to go.
        services: What is known of the services that the rules name.
    """
    if (refused := denied(rules, request, ())) is not None:
        return refused
    near: list[str] = []
    for index, rule in enumerate(rules.network.allow):
        if not _is_place(rule, request, rules, services):
            continue
        if (why := objection(rule, request, services)) is None:
            return Verdict(True, f"allow[{index}] {rule}", "", allow=rule)
        near.append(f"allow[{index}] {why}")
    if refused := _built_in(rules, request):
        return refused
    if near:
        return Verdict(False, DEFAULT_RULE, near[0], _remedy(rules))
    if problem := _problem(rules, request, services):
        return problem
    return Verdict(False, DEFAULT_RULE, f"no allow rule names {request}", _remedy(rules))


def denied(rules: Rules, request: Request, addresses: Iterable[Address]) -> Verdict | None:
    """What denies a request whatever the allow rules say.

    Args:
        rules: What decides.
        request: Where a client wants to go, or is connected.
        addresses: What its host stands for, as far as that is known.

    Returns:
        The refusal; None when nothing denies it.
    """
    if rules.is_off:
        return Verdict(
            False,
            OFF_RULE,
            "the network of this session was taken away while it lives",
            "Nothing gives it back; open another session.",
        )
    if not rules.network.allow:
        return Verdict(
            False,
            NONE_RULE,
            f"the policy {rules.policy_name!r} of this session allows no network",
            "Use a session whose policy allows this destination: open_session takes a policy",
        )
    hosts = [request.host, *(Host(str(address), address) for address in addresses)]
    for host in hosts:
        for name, rule in rules.denials():
            if _is_denied(rule, host, request.port):
                where = "" if host == request.host else f", for {request.host} is at {host}"
                return Verdict(False, name, f"a deny rule names it{where}, and those win")
    return None


def verdict_on_address(
    rules: Rules,
    request: Request,
    given: Verdict,
    address: Address,
    is_own: Callable[[Address], bool],
) -> Verdict:
    """Judge one of the addresses that an allowed request's host stands for.

    Args:
        rules: What decides.
        request: Where a client wants to go.
        given: The verdict that allowed it by name.
        address: One answer of the resolver, or the address that the request itself names.
        is_own: Whether an address is one of the controller's machine.
    """
    if (refused := denied(rules, request, (address,))) is not None:
        return refused
    if given.allow is not None and given.allow.address is not None:
        return given
    kind = kind_of(address)
    if kind in OF_SERVICES and given.allow is not None and given.allow.service is not None:
        kind = ""
    if not kind and is_own(address):
        kind = OWN
    if not kind:
        return given
    where = "it" if request.host.address is not None else f"{request.host} is at {address}, which"
    return Verdict(
        False,
        f"built-in: {kind}",
        f"{where} is not a public address",
        "No policy can open it; the operator may name such an address in the setting `addresses`",
    )


def shadowed_by(rules: Rules, name: str, port: int) -> str:
    """The deny rule that names a host which a connection mentions; empty when there is none."""
    host = Host(name)
    return next((title for title, rule in rules.denials() if _is_denied(rule, host, port)), "")


def in_words(rules: Rules) -> tuple[str, ...]:
    """What may be reached, a line for each rule."""
    return () if rules.is_off else tuple(rule.in_words() for rule in rules.network.allow)


def _is_place(
    rule: AllowRule, request: Request, rules: Rules, services: Mapping[str, Service]
) -> bool:
    """Whether a rule is about the request's host."""
    host = request.host
    if rule.domain is not None:
        return host.address is None and matches(rule.domain, host.text)
    if rule.cidr is not None:
        return host.address is not None and host.address in ip_network(rule.cidr)
    if rule.address is not None:
        address = rules.addresses.get(rule.address)
        return address is not None and (host.text == rule.address or host.address == address)
    service = services.get(rule.service or "", Service())
    return any(target.host == host.text for target in service.targets)


def objection(rule: AllowRule, request: Request, services: Mapping[str, Service]) -> str | None:
    """What keeps a rule about the request's host from allowing it; None when nothing does."""
    if rule.service is not None:
        targets = services[rule.service].targets
        wanted = Target(request.host.text, request.port, request.is_http)
        return None if wanted in targets else f"{rule} does not use this port or plain HTTP"
    ports = rule.effective_ports
    implied = rule.secret is not None and not request.has_port
    if request.port not in ports and not implied:
        return f"opens {rule} on port {', '.join(map(str, ports))} only"
    if rule.secret is not None:
        if not request.is_http:
            return (
                f"adds a secret for {rule.domain}, which it can in plain HTTP only: ask for "
                f"http://{rule.domain}/, and the gateway makes TLS of it"
            )
    elif request.is_http and not rule.http:
        return f"opens {rule} for encrypted connections only: use https://"
    if request.is_http and rule.methods and request.method not in rule.methods:
        return f"allows {', '.join(rule.methods)} on {rule}, not {request.method}"
    if request.is_http and rule.paths and not _is_path(rule.paths, request.path):
        return f"allows {', '.join(rule.paths)} on {rule}, not this path"
    return None


def _is_path(patterns: tuple[str, ...], path: str) -> bool:
    # What servers might read as another path than it looks like is none that a rule allows.
    if any(odd in path for odd in ("%", "\\", "//", ";")) or {".", ".."} & {*path.split("/")}:
        return False
    return any(
        path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern
        for pattern in patterns
    )


def _is_denied(rule: DenyRule, host: Host, port: int) -> bool:
    if rule.ports and port not in rule.ports:
        return False
    if rule.cidr is not None:
        return host.address is not None and host.address in ip_network(rule.cidr)
    return host.address is None and rule.domain is not None and matches(rule.domain, host.text)


def _built_in(rules: Rules, request: Request) -> Verdict | None:
    """The built-in list's word on a request that no rule allows: it says more than the default."""
    host = request.host
    if host.address is not None:
        kind = kind_of(host.address)
    else:
        kind = "loopback" if (f".{host.text}").endswith(".localhost") else ""
    if not kind:
        return None
    return Verdict(
        False,
        f"built-in: {kind}",
        f"{host} is not a public address",
        "What runs in this sandbox answers at 127.0.0.1 without the proxy"
        if kind == "loopback"
        else "No policy can open it; the operator may name such an address in `addresses`",
    )


def _problem(rules: Rules, request: Request, services: Mapping[str, Service]) -> Verdict | None:
    """A rule that may be meant, and cannot be followed as things are."""
    for index, rule in enumerate(rules.network.allow):
        name = f"allow[{index}] {rule}"
        service = services.get(rule.service or "")
        if service is not None and service.problem:
            return Verdict(False, name, service.problem, "Try again later, or tell the operator")
        if rule.address == request.host.text and rule.address not in rules.addresses:
            return Verdict(
                False,
                name,
                f"the operator's setting `addresses` does not have {rule.address!r}",
                "The operator has to name its address there",
            )
    return None


def _remedy(rules: Rules) -> str:
    named = in_words(rules)
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return f"Allowed here: {'; '.join(named[:MAX_NAMED])}{more}"
