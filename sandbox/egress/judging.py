"""The whole judgement of a request: by its name, then by every address that it stands for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sandbox.bulkheads.shares import Owner
from sandbox.egress.rules import NetworkRules, Verdict, verdict, verdict_on_address
from sandbox.egress.wayout import WayOut
from sandbox.policy.destinations import Address, Request

Consider = Callable[[Verdict], Awaitable[Verdict]]


async def judge(
    rules: Callable[[], NetworkRules],
    request: Request,
    egress: WayOut,
    *,
    owner: Owner,
    consider: Consider | None = None,
) -> tuple[Verdict, tuple[Address, ...]]:
    """Judge a request by all that can be known without connecting.

    Args:
        consider: Called with a verdict that allows by name, before the name is resolved; what it
            returns counts. None: the verdict itself does.

    Returns:
        What was decided, and the addresses that the host stands for; none when it was decided
        before they were looked up.

    Raises:
        Unreachable: The name does not resolve.
    """
    now = rules()
    given = verdict(now, request, await egress.services.known(now.network.services))
    if given.allowed and consider is not None:
        given = await consider(given)
    rule = given.allow
    if not given.allowed or rule is None:
        return given, ()
    if rule.address is not None:
        addresses = (now.addresses[rule.address],)
    elif request.host.address is not None:
        addresses = (request.host.address,)
    else:
        addresses = await egress.resolver.resolve(request.host.text, owner)
    for address in addresses:
        found = verdict_on_address(rules(), request, given, address, egress.dialer.is_own)
        if not found.allowed:
            return found, addresses
    return given, addresses
