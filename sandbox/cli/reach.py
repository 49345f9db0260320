"""What the gateway would decide about a destination; nothing is connected to."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from sandbox.bulkheads.shares import Owner
from sandbox.config import Settings
from sandbox.egress.dialing import Unreachable
from sandbox.egress.hosts import BadHost, parse_authority
from sandbox.egress.judging import judge
from sandbox.egress.machine import machine_egress
from sandbox.egress.rules import NetworkRules
from sandbox.errors import InvalidRequest
from sandbox.policy import Policy, Sentence
from sandbox.policy.destinations import Request


async def explain_reach(settings: Settings, policy: Policy, destination: str) -> Sentence:
    """Whether a session of a policy reaches a destination, and which rule decides.

    Args:
        destination: ``HOST:PORT`` for a tunnel, as HTTPS makes one, or ``http://HOST/PATH`` for a
            plain HTTP request.

    Raises:
        InvalidRequest: The destination is neither.
    """
    request = _request(destination)
    egress = machine_egress(settings, os.environ)
    rules = NetworkRules(policy.name, policy.network, addresses=egress.addresses)
    try:
        verdict, addresses = await judge(lambda: rules, request, egress, owner=Owner("local"))
    except Unreachable as exc:
        return Sentence(str(request), f"allowed, but not reachable from here: {exc}", "")
    if not verdict.allowed:
        return Sentence(str(request), f"denied: {verdict.reason}. {verdict.remedy}", verdict.rule)
    asked = ", after asking" if verdict.allow is not None and verdict.allow.ask else ""
    return Sentence(
        str(request), f"allowed{asked}, at {', '.join(map(str, addresses))}", verdict.rule
    )


def _request(destination: str) -> Request:
    try:
        if destination.lower().startswith("http://"):
            parts = urlsplit(destination)
            host, port = parse_authority(parts.netloc, 80)
            return Request(host, port, method="GET", path=parts.path or "/")
        return Request(*parse_authority(destination, 443))
    except (BadHost, ValueError) as exc:
        raise InvalidRequest(
            f"{destination[:200]!r} is no destination: {exc}.",
            remedy="Give HOST:PORT, such as api.example.com:443, or http://HOST/PATH.",
        ) from exc
