"""How a rule writes a name, a network, a path, a header: in one form only."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from sandbox.policy.fields import wrong

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
    return ":" in "".join(labels) or _NUMBER.fullmatch(labels[-1]) is not None


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


DomainPattern = Annotated[str, BeforeValidator(_domain)]
"""A name in lower case, or ``*.`` and at least two labels."""
Cidr = Annotated[str, BeforeValidator(_cidr)]
PathPattern = Annotated[str, BeforeValidator(_path)]
"""A path, or the beginning of paths with ``*`` at its end."""
Header = Annotated[str, BeforeValidator(_header)]
Prefix = Annotated[str, BeforeValidator(_prefix)]
