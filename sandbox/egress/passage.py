"""One connection on its way out: judged, connected, carried."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sandbox.bulkheads.shares import Owner
from sandbox.egress.clients import Asked, Plain, read_plain
from sandbox.egress.dialing import connect_any
from sandbox.egress.forward import forward
from sandbox.egress.heads import with_header
from sandbox.egress.inbound import Inbound
from sandbox.egress.judging import judge
from sandbox.egress.meter import Meter
from sandbox.egress.packageanswers import PackageAnswer, is_for_packages
from sandbox.egress.rules import DEFAULT_RULE, NetworkRules, Verdict, denied, verdict
from sandbox.egress.tunnel import Refused, first_bytes, refusal, relay, starts_with_tls
from sandbox.egress.wayout import Question, WayOut
from sandbox.policy.destinations import Address
from sandbox.policy.network import AllowRule

FIRST_BYTES_TIMEOUT_S = 10.0

_T = TypeVar("_T")


class Passage:
    """One connection on its way out."""

    def __init__(
        self,
        inbound: Inbound,
        asked: Asked,
        *,
        rules: Callable[[], NetworkRules],
        egress: WayOut,
        meter: Meter,
        owner: Owner,
    ) -> None:
        self.request = asked.request
        self.pins: tuple[Address, ...] = ()
        """What the request's host stands for; nothing else is connected to."""
        self._inbound = inbound
        self._asked = asked
        self._untold: Asked | None = asked
        """Who is to be told when it ends badly; None once what follows is the client's own."""
        self._rules = rules
        self._egress = egress
        self._meter = meter
        self._owner = owner

    async def admit(self) -> tuple[Verdict, AllowRule]:
        """Judge the request by all that can be known before connecting.

        Returns:
            The verdict that allows it, and its rule.

        Raises:
            Refused: A rule says no.
            Unreachable: Its name does not resolve.
        """
        given, self.pins = await judge(
            self._rules,
            self.request,
            self._egress,
            owner=self._owner,
            consider=self._considered,
        )
        if not given.allowed or given.allow is None:
            raise Refused(given)
        return given, given.allow

    def denied_now(self) -> Verdict | None:
        """What denies it by the rules of now; None when nothing does."""
        return denied(self._rules(), self.request, self.pins)

    async def connect(self, rule: AllowRule) -> socket.socket:
        """Connect to where it was admitted to.

        Raises:
            Unreachable: Nobody answers there.
            Refused: The rules have become narrower meanwhile.
        """
        port = rule.port_for(self.request)
        outside = await connect_any(self._egress.dialer, self.request.host, self.pins, port)
        if (refused := self.denied_now()) is not None:
            outside.close()
            raise Refused(refused)
        return outside

    async def carry(self, rule: AllowRule, outside: socket.socket) -> None:
        """Carry what belongs to it until it is over.

        Raises:
            Refused: What it carries is not what the rule allows.
            Unreachable: A plain HTTP request got no answer.
            OverLimit: The bytes are used up.
            SandboxError: It was given up inside.
            OSError: It was given up outside.
        """
        inbound, request = self._inbound, self.request
        await self._asked.accept()
        if isinstance(self._asked, Plain):
            await self._forward(self._asked, rule, outside)
            return
        self._untold = None
        if rule.http and not await _in_time(starts_with_tls(inbound)):
            plain = await _in_time(read_plain(inbound, request))
            if plain is not None:
                self._untold = plain
                if (why := rule.objection(plain.request, {})) is not None:
                    raise refusal(DEFAULT_RULE, f"the policy {why}")
                await self._forward(plain, rule, outside)
            return
        first = first_bytes(inbound, self._rules(), request, rule)
        first = _in_time(first) if rule.is_by_name(request) else first
        await relay(inbound, outside, self._meter, first)

    async def packages(self) -> PackageAnswer | None:
        """The answer of the gateway's own packages; None when it is for something else."""
        cache, network = self._egress.packages, self._rules().network
        if (
            cache is None
            or not isinstance(self._asked, Plain)
            or not is_for_packages(self.request)
            or not network.shares_packages
        ):
            return None
        services = await self._egress.services.known(network.services)
        if (refused := self.denied_now()) is not None:
            raise Refused(refused)
        return PackageAnswer(
            self._asked,
            cache,
            lambda request: verdict(self._rules(), request, services),
            self._meter,
            self._owner,
        )

    async def tell(self, verdict: Verdict, *, is_denied: bool) -> None:
        """Tell the client why there is no answer, if it still expects one."""
        if self._untold is not None:
            remedy = f" {verdict.remedy}." if verdict.remedy else ""
            how = f"denied by {verdict.rule}" if is_denied else "not reached"
            why = f"{self.request} {how}: {verdict.reason}.{remedy}"
            await self._untold.refuse(why, is_denied=is_denied)

    async def _forward(self, plain: Plain, rule: AllowRule, outside: socket.socket) -> None:
        head, tls = plain.head, None
        if rule.secret is not None:
            value = await self._egress.secrets.get(self._owner.session_id, rule.secret)
            if value is None:
                raise refusal(
                    f"secret {rule.secret}",
                    f"the controller has no secret {rule.secret!r}",
                    "The operator has to give it to the controller",
                )
            head = with_header(head, rule.header, f"{rule.prefix}{value}")
            tls = self._egress.tls()
        await forward(plain, head, outside, self._meter, tls)

    async def _considered(self, given: Verdict) -> Verdict:
        """The verdict as it stands after a person was asked, if its rule wants that."""
        if given.allow is None or not given.allow.ask:
            return given
        request = self.request
        answer = await self._egress.approver.ask(
            Question(
                session_id=self._owner.session_id,
                principal=self._owner.principal,
                destination=str(request),
                request=f"{request.method} {request.path}".strip(),
                rule=given.rule,
            )
        )
        if answer.allowed:
            return given
        return Verdict(False, given.rule, answer.reason, answer.remedy)


async def _in_time(part: Awaitable[_T]) -> _T:
    """Wait for what a tunnel begins with, within a bound.

    Raises:
        Refused: It did not come.
    """
    try:
        async with asyncio.timeout(FIRST_BYTES_TIMEOUT_S):
            return await part
    except TimeoutError as exc:
        raise refusal(
            "built-in: time", f"nothing complete was sent within {FIRST_BYTES_TIMEOUT_S:g} s"
        ) from exc
