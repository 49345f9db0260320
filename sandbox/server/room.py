"""What a session has to work with, in one line for an agent that plans."""

from __future__ import annotations

import math
import time

from sandbox.egress.models import NetworkInfo
from sandbox.policy.units import MINUTE, format_duration, format_size
from sandbox.sessions.models import SessionInfo
from sandbox.sessions.session import Session

PACKAGE_INDEX = "service package-index"
MAX_RULES = 8
"""Of a network, for a reader; the session's `network` has all."""


def with_room(session: Session, *, with_proof: bool = False) -> SessionInfo:
    """A session as it is now, and what it has."""
    info, spec = session.info(with_proof=with_proof), session.sandbox.spec
    cpus = spec.nano_cpus / 1_000_000_000
    disk = ", ".join(f"{each.target} {format_size(each.size_bytes)}" for each in spec.tmpfs)
    mounts = "".join(
        f", {mount.target}{' read-only' if mount.read_only else ''}" for mount in spec.mounts
    )
    pip = ", pip installs" if any(map(_is_index, info.network.allow)) else ""
    room = (
        f"{format_size(info.limits.memory_bytes)} of memory, files included; "
        f"{cpus:g} CPU{'' if cpus == 1 else 's'}; disk {disk}{mounts}; "
        f"{format_duration(info.limits.execution_s)} for a cell or command; ends after "
        f"{format_duration(info.limits.idle_s)} idle, in {_left(info.expires_at - time.time())} "
        f"at the latest; packages of the image {_name(info.image)}{pip}; "
        f"network: {reach(info.network)}."
    )
    return info.model_copy(update={"room": room})


def _left(seconds: float) -> str:
    """In whole minutes where there are some: who plans needs no seconds."""
    whole = max(0, math.ceil(seconds))
    return format_duration(whole - whole % MINUTE if whole > MINUTE else whole)


def _name(image: str) -> str:
    return image.partition(":")[0].rpartition("/")[2]


def _is_index(rule: str) -> bool:
    return rule.startswith(PACKAGE_INDEX)


def reach(network: NetworkInfo) -> str:
    """What a session may reach, in words."""
    rules = list(dict.fromkeys("package index" if _is_index(r) else r for r in network.allow))
    if not rules:
        return "none"
    more = " and more" if len(rules) > MAX_RULES else ""
    return f"{'; '.join(rules[:MAX_RULES])}{more}, all else is denied"
