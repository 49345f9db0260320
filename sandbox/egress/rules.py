"""What all rules together say about a request to go out: pure, and the only place that says so.

Each rule decides about itself (``sandbox.policy.network``). Here they are asked in order: what was
taken away, the deny rules, the first allow rule that has no objection, the built-in list. A request
is judged three times, each before anything is sent to where it leads: by what it names
(:func:`verdict`), by every address that its name stands for (:func:`verdict_on_address`), and by
what the first bytes of its connection say (``sandbox.egress.tunnel``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sandbox.egress.addresses import OF_SERVICES, OWN, kind_of
from sandbox.policy.destinations import Address, Host, Request, Service
from sandbox.policy.network import AllowRule, DenyRule, NetworkPolicy

NONE_RULE = "network: none"
OFF_RULE = "tightened: network none"
DEFAULT_RULE = "default: no rule allows it"
MAX_NAMED = 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided, by which rule, and why."""

    allowed: bool
    rule: str
    reason: str
    remedy: str = ""
    """What to do about a refusal; empty when nothing can be done."""
    allow: AllowRule | None = None
    """The rule that allows it."""


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """All that decides about one session's requests."""

    policy_name: str
    network: NetworkPolicy
    added: tuple[DenyRule, ...] = ()
    """Deny rules that were added while the session lives."""
    is_off: bool = False
    """Whether its network was taken away altogether."""
    addresses: Mapping[str, Address] = field(default_factory=dict[str, Address])
    """What the operator's settings name, and no policy can."""

    def denials(self) -> list[tuple[str, DenyRule]]:
        """Every deny rule with its name."""
        own = [(f"deny[{i}] {rule}", rule) for i, rule in enumerate(self.network.deny)]
        return own + [(f"tightened[{i}] {rule}", rule) for i, rule in enumerate(self.added)]


def verdict(rules: NetworkRules, request: Request, services: Mapping[str, Service]) -> Verdict:
    """Judge a request by what it names. Nothing has been resolved or connected before."""
    if (refused := denied(rules, request, ())) is not None:
        return refused
    near: list[str] = []
    for index, rule in enumerate(rules.network.allow):
        if not rule.is_about(request, services, rules.addresses):
            continue
        if (why := rule.objection(request, services)) is None:
            return Verdict(True, f"allow[{index}] {rule}", "", allow=rule)
        near.append(f"allow[{index}] {why}")
    if refused := _built_in(rules, request):
        return refused
    if near:
        return Verdict(False, DEFAULT_RULE, near[0], _remedy(rules))
    if problem := _problem(rules, request, services):
        return problem
    return Verdict(False, DEFAULT_RULE, f"no allow rule names {request}", _remedy(rules))


def denied(rules: NetworkRules, request: Request, addresses: Iterable[Address]) -> Verdict | None:
    """What denies a request whatever the allow rules say; None when nothing does.

    The addresses are what its host stands for, as far as that is known.
    """
    if rules.is_off:
        return Verdict(
            False,
            OFF_RULE,
            "the network of this session was taken away while it lives",
            "Nothing gives it back; open another session.",
        )
    if rules.network.is_none:
        return Verdict(
            False,
            NONE_RULE,
            f"the policy {rules.policy_name!r} of this session allows no network",
            "Use a session whose policy allows this destination: open_session takes a policy",
        )
    hosts = [request.host, *(Host(str(address), address) for address in addresses)]
    for host in hosts:
        for name, rule in rules.denials():
            if rule.denies(host, request.port):
                where = "" if host == request.host else f", for {request.host} is at {host}"
                return Verdict(False, name, f"a deny rule names it{where}, and those win")
    return None


def verdict_on_address(
    rules: NetworkRules,
    request: Request,
    given: Verdict,
    address: Address,
    is_own: Callable[[Address], bool],
) -> Verdict:
    """Judge one of the addresses that an allowed request's host stands for."""
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


def shadowed_by(rules: NetworkRules, name: str, port: int) -> str:
    """The deny rule that names a host which a connection mentions; empty when there is none."""
    host = Host(name)
    return next((title for title, rule in rules.denials() if rule.denies(host, port)), "")


def in_words(rules: NetworkRules) -> tuple[str, ...]:
    """What may be reached, a line for each rule."""
    return () if rules.is_off else tuple(rule.in_words() for rule in rules.network.allow)


def _built_in(rules: NetworkRules, request: Request) -> Verdict | None:
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


def _problem(
    rules: NetworkRules, request: Request, services: Mapping[str, Service]
) -> Verdict | None:
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


def _remedy(rules: NetworkRules) -> str:
    named = in_words(rules)
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return f"Allowed here: {'; '.join(named[:MAX_NAMED])}{more}"
