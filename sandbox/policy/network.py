"""What a session may reach: rules that name destinations, and how much may go there.

Nothing is reachable but what an allow rule names, and what a deny rule names is not, whatever else
is said. Which addresses no rule can open is not a policy's affair: ``sandbox.egress`` knows them.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from sandbox.policy.fields import count, duration, flag, items, listing, one_of, size, word, wrong
from sandbox.policy.frozen import Frozen
from sandbox.policy.units import DAY, GIB, KIB, MINUTE, TIB

Service = Literal["package-index"]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

MAX_RULES = 200
HTTPS_PORT = 443
HTTP_PORT = 80

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_PATH = re.compile(r"/[!-~]{0,254}")
_ODD_PATH = re.compile(r"\.\.|//|%|\*.")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")


def _domain(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(f"{value!r} is not a name", "Write a name such as `api.example.com`.")
    labels = value.removeprefix("*.").split(".")
    if _is_numeric(labels):
        raise wrong(f"{value!r} is an address, not a name", "Use `cidr` for addresses.")
    if value.startswith("*.") and len(labels) < 2:
        raise wrong(
            f"{value!r} would be open to everybody's names",
            "A wildcard needs at least two labels after it: `*.example.com`.",
        )
    if len(labels) < 2:
        raise wrong(
            f"{value!r} has one label, which is nobody's name on the internet",
            "Write a name such as `api.example.com`; for a machine of your own the operator names "
            "an `address`.",
        )
    if "*" in "".join(labels):
        raise wrong(
            f"{value!r} has a `*` where none can be", "A `*.` can only stand at the beginning."
        )
    if not value.isascii():
        raise wrong(f"{value!r} is not ASCII", f"Write it as {_in_ascii(value)}.")
    if value != value.lower() or value.endswith("."):
        raise wrong(f"{value!r} is not in its usual form", f"Write `{value.lower().rstrip('.')}`.")
    if len(value) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise wrong(f"{value!r} is not a name", "Write a name such as `api.example.com`.")
    return value


def _is_numeric(labels: list[str]) -> bool:
    """Whether anything would read these labels as an address: what ends in a number is one."""
    return (
        ":" in "".join(labels) or re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", labels[-1]) is not None
    )


def _in_ascii(name: str) -> str:
    try:
        return f"`{name.encode('idna').decode()}`"
    except UnicodeError:
        return "its `xn--` form"


def _cidr(value: Any) -> str:
    try:
        if not isinstance(value, str):
            raise ValueError("it is not text")
        return str(ipaddress.ip_network(value))
    except ValueError as exc:
        raise wrong(
            f"{value!r} is not a network: {exc}", "Write one such as `198.51.100.0/24`."
        ) from exc


def _path(value: Any) -> str:
    if isinstance(value, str) and _PATH.fullmatch(value) and not _ODD_PATH.search(value):
        return value
    raise wrong(
        f"{value!r} is not a path, or a beginning of paths",
        "Write `/v1/models`, or `/v1/*` for all below it; no `..`, `//` or `%`.",
    )


def _header(value: Any) -> str:
    refused = {"host", "connection", "content-length", "transfer-encoding", "upgrade", "te"}
    if isinstance(value, str) and _HEADER.fullmatch(value) and value.lower() not in refused:
        return value
    raise wrong(f"{value!r} cannot carry a secret", "Write a header such as `Authorization`.")


def _prefix(value: Any) -> str:
    if isinstance(value, str) and len(value) <= 64 and value.isascii() and value.isprintable():
        return value
    raise wrong(f"{value!r} cannot stand before a secret", 'Write a text such as `"Bearer "`.')


class _Destination(Frozen):
    """Where to: exactly one kind of place, and ports."""

    domain: Annotated[str, BeforeValidator(_domain)] | None = None
    """A name: exact, or ``*.`` and at least two labels for all names below."""
    cidr: Annotated[str, BeforeValidator(_cidr)] | None = None
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


class AllowRule(_Destination):
    """What is reachable."""

    service: Annotated[Service, one_of("package-index")] | None = None
    """A service that the controller's machine is configured for: its hosts are found there."""
    address: Annotated[str, word("the name of an address")] | None = None
    """A name of the operator's setting ``addresses``, for what no other rule may reach."""
    ports: Annotated[tuple[Annotated[int, count(1, 65535)], ...], listing(optional=True)] = ()
    """Which ports; none means 443, or 80 for plain HTTP."""
    http: Annotated[bool, flag()] = False
    """Plain HTTP too, in which the gateway sees each request."""
    methods: Annotated[tuple[Annotated[Method, one_of(*METHODS)], ...], listing(optional=True)] = ()
    """The methods of plain HTTP; none means every one."""
    paths: Annotated[
        tuple[Annotated[str, BeforeValidator(_path)], ...], listing(optional=True)
    ] = ()
    """The paths of plain HTTP, exact or ``/beginning/*``; none means every one."""
    ask: Annotated[bool, flag()] = False
    """Pause and ask the person behind the client first."""
    secret: Annotated[str, word("the name of a secret")] | None = None
    """A secret that the gateway adds to each request, so that the code never has it. The code
    sends plain HTTP; the gateway makes TLS of it, to this rule's port."""
    header: Annotated[str, BeforeValidator(_header)] = "Authorization"
    prefix: Annotated[str, BeforeValidator(_prefix)] = ""

    @model_validator(mode="after")
    def _check(self) -> AllowRule:
        self.check_one_place("`service`, `domain`, `cidr`, `address`")
        if (self.methods or self.paths) and not (self.http or self.secret):
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


class NetworkLimits(Frozen):
    """How much may go through the gateway."""

    connections: Annotated[int, count(1, 1024)] = 32
    """At the same time."""
    rate_per_minute: Annotated[int, count(1, 6000)] = Field(default=300, validation_alias="rate")
    """New connections in any minute."""
    total_bytes: Annotated[int, size(KIB, TIB)] = Field(default=GIB, validation_alias="bytes")
    """Of one session, both ways together."""
    duration_s: Annotated[int, duration(1, DAY)] = Field(
        default=10 * MINUTE, validation_alias="duration"
    )
    """The longest that one connection may last."""


class NetworkPolicy(Frozen):
    """What a session may reach; with no allow rule, nothing."""

    allow: Annotated[tuple[AllowRule, ...], items(MAX_RULES)] = ()
    deny: Annotated[tuple[DenyRule, ...], items(MAX_RULES)] = ()
    limits: NetworkLimits = NetworkLimits()

    @property
    def is_none(self) -> bool:
        """Whether nothing at all is reachable."""
        return not self.allow


def none_or_rules(value: Any) -> Any:
    """``none`` as a policy that allows nothing; anything else as it is."""
    if value == "none":
        return NetworkPolicy()
    if isinstance(value, dict | NetworkPolicy):
        return cast("object", value)
    raise wrong(
        f"{value!r} is not accepted", "Write `none`, or a mapping with `allow:` and its rules."
    )


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
