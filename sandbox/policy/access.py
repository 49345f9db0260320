"""What else a session is given: folders of the host, secrets, and what a person must agree to."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from sandbox.policy.fields import duration, flag, items, one_of, word, wrong
from sandbox.policy.parts import Part, key
from sandbox.policy.units import HOUR

MAX_MOUNTS = 32
MAX_SECRETS = 64
_PART = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,128}"
_TARGET = re.compile(rf"/(?:data|mnt)(?:/{_PART}){{1,8}}")
_BELOW = re.compile(rf"{_PART}(?:/{_PART}){{0,15}}")


def _target(value: Any) -> str:
    if isinstance(value, str) and _TARGET.fullmatch(value):
        return value
    raise wrong(
        f"{value!r} is not a place for a mount",
        "Write a path below /data or /mnt, such as `/data/iris`: letters, digits, `.`, `_`, `-`.",
    )


def _below(value: Any) -> str:
    if isinstance(value, str) and (value == "" or _BELOW.fullmatch(value)):
        return value
    raise wrong(
        f"{value!r} is not a path below the root",
        "Write one such as `iris/2024`: no `..`, no `/` at either end.",
    )


class MountRule(Part):
    """A folder of the host, below a root that the operator named."""

    root: Annotated[str, word("the name of a root")]
    """A name of the operator's setting ``roots``."""
    path: Annotated[str, BeforeValidator(_below)] = ""
    """Which folder below the root; empty for the root itself."""
    target: Annotated[str, BeforeValidator(_target)]
    """Where it is inside."""
    read_only: Annotated[bool, flag()] = True
    sockets: Annotated[Literal["refuse", "allow"], one_of("refuse", "allow")] = "refuse"
    """``refuse``: with a socket or a FIFO of the host in it, or too large to be searched for one,
    no session has it. ``allow``: code may speak to the host's programs behind them."""


class SecretRule(Part):
    """A value that the controller holds."""

    name: Annotated[str, word("the name of a secret")]
    delivery: Annotated[Literal["file", "gateway"], one_of("file", "gateway"), key("as")] = (
        "gateway"
    )
    """``file``: the session has it, in ``/run/secrets/NAME``. ``gateway``: it never has it; a
    network rule adds it to requests."""


class ApprovePolicy(Part):
    """What a person is asked before it happens."""

    tools: Annotated[tuple[Annotated[str, word("the name of a tool")], ...], items(64)] = ()
    """Tools whose every call is asked for."""
    timeout_s: Annotated[int, duration(1, HOUR), key("timeout")] = 60
    """How long an answer is awaited; none is a no."""
    remember: Annotated[Literal["session", "never"], one_of("session", "never")] = "session"
    """Whether an answer may hold for the rest of the session."""
