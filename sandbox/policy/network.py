"""What a session may reach: rules that name destinations, and how much may go there.

Nothing is reachable but what an allow rule names, and what a deny rule names is not, whatever else
is said. What one rule means for a request, it says itself; ``sandbox.egress`` asks all of them in
their order, and knows which addresses no rule can open.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal, cast

from pydantic import model_validator

from sandbox.policy.destinations import Address, Host, Request, Service, Target, matches
from sandbox.policy.fields import count, duration, flag, items, listing, one_of, size, word, wrong
from sandbox.policy.networkfields import Cidr, DomainPattern, Header, PathPattern, Prefix
from sandbox.policy.parts import Part, key
from sandbox.policy.units import DAY, GIB, KIB, MINUTE, TIB

ServiceName = Literal["package-index"]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

MAX_RULES = 200
HTTPS_PORT = 443
HTTP_PORT = 80


class _Destination(Part):
    """Where to: exactly one kind of place, and ports."""

    domain: DomainPattern | None = None
    """A name: exact, or ``*.`` and at least two labels for all names below."""
    cidr: Cidr | None = None
    """Addresses, named by their network."""

    def places(self) -> list[str]:
        """The kinds of place that this rule names, in the words of the file."""
        kinds = ("service", "domain", "cidr", "address")
        return [kind for kind in kinds if getattr(self, kind, None) is not None]

    def check_one_place(self, accepted: str) -> None:
        """Refuse a rule that names no place or several."""
        if len(self.places()) != 1:
            named = " and ".join(self.places()) or "no place"
            raise wrong(f"names {named}; a rule names one", f"Write exactly one of {accepted}.")

    def names(self, host: Host) -> bool:
        """Whether its domain or network holds a host: a name by a name, an address by a network."""
        if self.cidr is not None:
            return host.address is not None and host.address in ip_network(self.cidr)
        return self.domain is not None and host.address is None and matches(self.domain, host.text)

    def __str__(self) -> str:
        kind = self.places()[0]
        ports = ",".join(map(str, getattr(self, "ports", ())))
        return f"{kind} {getattr(self, kind)}" + (f":{ports}" if ports else "")


class DenyRule(_Destination):
    """What is not reachable, whatever the allow rules say."""

    ports: Annotated[tuple[Annotated[int, count(1, 65535)], ...], listing(optional=True)] = ()
    """Which ports; none means all of them."""

    @model_validator(mode="after")
    def _check(self) -> DenyRule:
        self.check_one_place("`domain`, `cidr`")
        return self

    def denies(self, host: Host, port: int) -> bool:
        """Whether nothing may go to a port of a host."""
        return (not self.ports or port in self.ports) and self.names(host)


class AllowRule(_Destination):
    """What is reachable."""

    service: Annotated[ServiceName, one_of("package-index")] | None = None
    """A service that the controller's machine is configured for: its hosts are found there."""
    address: Annotated[str, word("the name of an address")] | None = None
    """A name of the operator's setting ``addresses``, for what no other rule may reach."""
    ports: Annotated[tuple[Annotated[int, count(1, 65535)], ...], listing(optional=True)] = ()
    """Which ports; none means 443, or 80 for plain HTTP."""
    http: Annotated[bool, flag()] = False
    """Plain HTTP too, in which the gateway sees each request."""
    methods: Annotated[tuple[Annotated[Method, one_of(*METHODS)], ...], listing(optional=True)] = ()
    """The methods of plain HTTP; none means every one."""
    paths: Annotated[tuple[PathPattern, ...], listing(optional=True)] = ()
    """The paths of plain HTTP, exact or ``/beginning/*``; none means every one."""
    ask: Annotated[bool, flag()] = False
    """Pause and ask the person behind the client first."""
    secret: Annotated[str, word("the name of a secret")] | None = None
    """A secret that the gateway adds to each request, so that the code never has it. The code
    sends plain HTTP; the gateway makes TLS of it, to this rule's port."""
    header: Header = "Authorization"
    prefix: Prefix = ""

    @model_validator(mode="after")
    def _check(self) -> AllowRule:
        self.check_one_place("`service`, `domain`, `cidr`, `address`")
        if self.is_about_requests and not (self.http or self.secret):
            raise wrong(
                "the gateway sees methods and paths of plain HTTP only",
                "Add `http: true`, or leave them out.",
                at=("methods" if self.methods else "paths",),
            )
        if self.secret is not None and (self.domain is None or self.domain.startswith("*")):
            raise wrong(
                "a secret goes to one host and no other",
                "Write it in a rule with an exact `domain`.",
                at=("secret",),
            )
        if self.secret is None and (self.header != "Authorization" or self.prefix):
            raise wrong(
                "there is no secret to put there",
                "Add `secret`, or leave it out.",
                at=("prefix" if self.prefix else "header",),
            )
        if self.secret is not None and self.http:
            raise wrong(
                "a secret must not travel unencrypted",
                "Leave `http` out: the gateway makes TLS of what the code sends.",
                at=("http",),
            )
        return self

    @property
    def effective_ports(self) -> tuple[int, ...]:
        """The ports that it opens."""
        return self.ports or ((HTTP_PORT,) if self.http else (HTTPS_PORT,))

    @property
    def is_about_requests(self) -> bool:
        """Whether it allows some requests of plain HTTP and not others."""
        return bool(self.methods or self.paths)

    def is_about(
        self,
        request: Request,
        services: Mapping[str, Service],
        addresses: Mapping[str, Address],
    ) -> bool:
        """Whether the request's host is the place that it names."""
        host = request.host
        if self.address is not None:
            address = addresses.get(self.address)
            return address is not None and (host.text == self.address or host.address == address)
        if self.service is not None:
            targets = services.get(self.service, Service()).targets
            return any(target.host == host.text for target in targets)
        return self.names(host)

    def is_by_name(self, request: Request) -> bool:
        """Whether a tunnel for the request must be TLS that names the request's host."""
        return request.host.address is None and self.address is None

    def port_for(self, request: Request) -> int:
        """The port to connect to: with a secret it is the rule's, unless one was written."""
        is_implied = self.secret is not None and not request.has_port
        return self.effective_ports[0] if is_implied else request.port

    def objection(self, request: Request, services: Mapping[str, Service]) -> str | None:
        """What keeps it from allowing a request to its place; None when nothing does."""
        if self.service is not None:
            wanted = Target(request.host.text, request.port, request.is_http)
            known = wanted in services[self.service].targets
            return None if known else f"{self} does not use this port or plain HTTP"
        if self.port_for(request) not in self.effective_ports:
            return f"opens {self} on port {', '.join(map(str, self.effective_ports))} only"
        if self.secret is not None and not request.is_http:
            return (
                f"adds a secret for {self.domain}, which it can in plain HTTP only: ask for "
                f"http://{self.domain}/, and the gateway makes TLS of it"
            )
        if request.is_http and not (self.http or self.secret):
            return f"opens {self} for encrypted connections only: use https://"
        if request.is_http and self.methods and request.method not in self.methods:
            return f"allows {', '.join(self.methods)} on {self}, not {request.method}"
        if request.is_http and self.paths and not _is_path(self.paths, request.path):
            return f"allows {', '.join(self.paths)} on {self}, not this path"
        if request.override and self.is_about_requests:
            named = request.override
            return f"allows some requests on {self}, and the header {named} may name others"
        return None

    def in_words(self) -> str:
        """What it opens, for people."""
        kind = self.places()[0]
        words = [f"{kind} {getattr(self, kind)}, port {', '.join(map(str, self.effective_ports))}"]
        if self.http:
            words.append("plain HTTP too")
        if self.methods:
            words.append("/".join(self.methods))
        if self.paths:
            words.append(" ".join(self.paths))
        if self.secret is not None:
            words.append(f"as http://{self.domain}/, with {self.header} added by the gateway")
        if self.ask:
            words.append("after asking")
        return ", ".join(words)

    def is_within(self, other: AllowRule) -> bool:
        """Whether it opens nothing that the other does not."""
        same = all(
            getattr(self, name) == getattr(other, name)
            for name in ("service", "cidr", "address", "secret", "header", "prefix")
        )
        return (
            same
            and _domain_within(self.domain, other.domain)
            and set(self.effective_ports) <= set(other.effective_ports)
            and self.http <= other.http
            and self.ask >= other.ask
            and (not other.methods or (bool(self.methods) and {*self.methods} <= {*other.methods}))
            and _paths_within(self.paths, other.paths)
        )


class NetworkLimits(Part):
    """How much may go through the gateway."""

    connections: Annotated[int, count(1, 1024)] = 32
    """At the same time."""
    rate_per_minute: Annotated[int, count(1, 6000), key("rate")] = 300
    """New connections in any minute."""
    total_bytes: Annotated[int, size(KIB, TIB), key("bytes")] = GIB
    """Of one session, both ways together."""
    duration_s: Annotated[int, duration(1, DAY), key("duration")] = 10 * MINUTE
    """The longest that one connection may last."""


class NetworkPolicy(Part):
    """What a session may reach; with no allow rule, nothing."""

    allow: Annotated[tuple[AllowRule, ...], items(MAX_RULES)] = ()
    deny: Annotated[tuple[DenyRule, ...], items(MAX_RULES)] = ()
    limits: NetworkLimits = NetworkLimits()

    @property
    def is_none(self) -> bool:
        """Whether nothing at all is reachable."""
        return not self.allow

    @property
    def services(self) -> frozenset[str]:
        """The services that its rules name."""
        return frozenset(rule.service for rule in self.allow if rule.service)

    @property
    def shares_packages(self) -> bool:
        """Whether packages of the index may come from what all sessions share."""
        return any(rule.service == "package-index" and not rule.ask for rule in self.allow)


def none_or_rules(value: Any) -> Any:
    """``none`` as a policy that allows nothing; anything else as it is."""
    if value == "none":
        return NetworkPolicy()
    if isinstance(value, dict | NetworkPolicy):
        return cast("object", value)
    raise wrong(
        f"{value!r} is not accepted", "Write `none`, or a mapping with `allow:` and its rules."
    )


def _is_path(patterns: tuple[str, ...], path: str) -> bool:
    # What servers might read as another path than it looks like is none that a rule allows.
    if any(odd in path for odd in ("%", "\\", "//", ";")) or {".", ".."} & {*path.split("/")}:
        return False
    return any(_path_within(path, pattern) for pattern in patterns)


def _domain_within(ours: str | None, theirs: str | None) -> bool:
    if ours is None or theirs is None:
        return ours == theirs
    if theirs.startswith("*."):
        return ours == theirs or ours.endswith(theirs[1:])
    return ours == theirs


def _paths_within(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    if not theirs:
        return True
    return bool(ours) and all(any(_path_within(path, other) for other in theirs) for path in ours)


def _path_within(path: str, other: str) -> bool:
    return path == other or (other.endswith("*") and path.startswith(other[:-1]))
