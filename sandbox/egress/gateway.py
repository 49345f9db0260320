"""One session's gateway: takes its outgoing connections, and says what became of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import cast

from sandbox.bulkheads.shares import Owner
from sandbox.egress.clients import read_asked
from sandbox.egress.dialing import Unreachable
from sandbox.egress.heads import BadHead
from sandbox.egress.hosts import MAX_HOST
from sandbox.egress.inbound import Inbound
from sandbox.egress.meter import Meter, OverLimit
from sandbox.egress.models import MAX_ADDED_RULES, NetworkInfo, Tightening
from sandbox.egress.passage import Passage
from sandbox.egress.rules import NetworkRules, Verdict, in_words
from sandbox.egress.tunnel import Refused, refusal
from sandbox.egress.wayout import Seen, WayOut
from sandbox.errors import InvalidRequest, QuotaExceeded, SandboxError, TooMuchWork
from sandbox.link.link import Stream, printable
from sandbox.outputs.denials import UNREACHABLE, Denial, DenialLog
from sandbox.outputs.redaction import Redactor
from sandbox.policy import Policy
from sandbox.policy.destinations import Address, Request

OP = "egress"
HEAD_TIMEOUT_S = 10.0
"""For a client to say what it wants."""
LINGER_S = 2.0
"""For a client to take a refusal."""
SHARE_RULE = "built-in: share of connections"
MAX_TOLD = 16
"""Connections over the limit that are still told why; those beyond are cut at once."""

logger = logging.getLogger(__name__)


class Gateway:
    """The way out of one session."""

    def __init__(
        self,
        session_id: str,
        principal: str,
        policy: Policy,
        egress: WayOut,
        tightened: Tightening,
        redactor: Redactor | None = None,
    ) -> None:
        self.denials = DenialLog()
        self._owner = Owner(principal, session_id)
        self._shown = (redactor or Redactor()).text
        self._egress = egress
        self._policy = policy.name
        self._policy_digest = policy.digest
        self._limits = policy.network.limits
        self._rules = NetworkRules(policy.name, policy.network, addresses=egress.addresses)
        self._meter = Meter(self._limits, lambda size: egress.charge(principal, size))
        self._passing: dict[Passage, asyncio.Task[None]] = {}
        self._cut: dict[Passage, Verdict] = {}
        self._over = 0
        """Connections over a limit that are still here."""
        self._set(tightened)

    # --- for the session

    def info(self) -> NetworkInfo:
        """The session's network as it is now."""
        allow = in_words(self._rules)
        return NetworkInfo(
            mode="gateway" if allow else "none",
            allow=allow,
            deny=tuple(self._shown(str(rule)) for _, rule in self._rules.denials()),
            is_tightened=self.tightened != Tightening(),
            connections=self._meter.connections,
            open_connections=len(self._passing),
            sent_bytes=self._meter.sent_bytes,
            received_bytes=self._meter.received_bytes,
            denials=self.denials.since(),
        )

    @property
    def tightened(self) -> Tightening:
        """What was taken away since the session was opened."""
        return Tightening(is_off=self._rules.is_off, deny=self._rules.added)

    def tightening(self, more: Tightening) -> Tightening:
        """What :meth:`tighten` would come to.

        Raises:
            QuotaExceeded: Those are too many rules.
        """
        wanted = self.tightened.joined(more)
        if len(wanted.deny) > MAX_ADDED_RULES:
            raise QuotaExceeded(
                f"A session's network can be tightened by {MAX_ADDED_RULES} rules at most.",
                remedy="Take all of it away with network='none', or open another session.",
            )
        return wanted

    def tighten(self, more: Tightening) -> None:
        """Take something away, for good; connections that are no longer allowed are cut.

        Raises:
            QuotaExceeded: Those are too many rules.
        """
        self._set(self.tightening(more))
        for passage, task in tuple(self._passing.items()):
            if passage not in self._cut and (refused := passage.denied_now()) is not None:
                self._cut[passage] = refused
                task.cancel()

    def _set(self, tightened: Tightening) -> None:
        self._rules = replace(self._rules, is_off=tightened.is_off, added=tightened.deny)

    # --- for the link

    async def serve(self, stream: Stream) -> None:
        """Carry one connection from its first byte to its end.

        Raises:
            InvalidRequest: The stream is for something else.
        """
        if stream.request.get("op") != OP:
            raise InvalidRequest(f"A stream from inside can only be for {OP!r}.")
        try:
            with self._counted() as over:
                if over is None or self._over <= MAX_TOLD:
                    is_over = await self._serve(Inbound(stream, self._owner.session_id), over)
                else:
                    self._note(None, over)
                    is_over = False
        except SandboxError:  # given up inside: nobody is left to be told
            is_over = False
        except OSError as exc:
            logger.debug("session %s: a connection broke off: %s", self._owner.session_id, exc)
            is_over = False
        if not is_over:
            stream.reset()

    @contextmanager
    def _counted(self) -> Generator[Verdict | None]:
        """Count a connection while the block runs; yields why it is one too many."""
        places = self._egress.places
        over: Verdict | None = None
        try:
            self._meter.begin()
        except OverLimit as exc:
            over = _of_limit(exc)
        else:
            if why := places.take(self._owner):
                over = Verdict(False, SHARE_RULE, why, "Use fewer connections, or wait")
        self._over += over is not None
        try:
            yield over
        finally:
            self._over -= over is not None
            self._meter.end()
            if over is None:
                places.give(self._owner)

    async def _serve(self, inbound: Inbound, over: Verdict | None) -> bool:
        """Serve one connection; whether it came to its end, so that nothing is left to reset."""
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                asked = await read_asked(inbound)
        except TimeoutError:
            why = f"no request was complete within {HEAD_TIMEOUT_S:g} s"
            self._note(None, Verdict(False, "built-in: time", why))
            return False
        except BadHead as exc:
            self._note_bad(exc)
            return await _lingered(inbound)
        except TooMuchWork as exc:
            self._note(None, _of_work(exc))
            return False
        if asked is None:
            return False
        passage = Passage(
            inbound,
            asked,
            rules=lambda: self._rules,
            egress=self._egress,
            meter=self._meter,
            owner=self._owner,
        )
        if over is not None:
            await self._refuse(passage, over)
            return await _lingered(inbound)
        return await self._follow(inbound, passage)

    async def _follow(self, inbound: Inbound, passage: Passage) -> bool:
        """Let a connection pass within its time, and as long as the rules do not change."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._passing[passage] = task
        try:
            async with asyncio.timeout(self._limits.duration_s):
                return await self._pass(inbound, passage)
        except TimeoutError:
            over = OverLimit("duration", f"its {self._limits.duration_s} s were over")
            self._note(passage.request, _of_limit(over))
        except asyncio.CancelledError:
            if (refused := self._cut.get(passage)) is None:
                raise
            task.uncancel()
            self._note(passage.request, refused)
        finally:
            del self._passing[passage]
            self._cut.pop(passage, None)
        return False

    async def _pass(self, inbound: Inbound, passage: Passage) -> bool:
        try:
            self._require_record()
            if (packages := await passage.packages()) is not None:
                self._let_out(packages.admit(), passage)
                await packages.give()
                inbound.end()
                return await inbound.drained()
            given, rule = await passage.admit()
            with await passage.connect(rule) as outside:
                self._let_out(given, passage)
                await passage.carry(rule, outside)
        except Refused as exc:
            await self._refuse(passage, exc.verdict)
        except Unreachable as exc:
            verdict = Verdict(False, UNREACHABLE, str(exc))
            self._note(passage.request, verdict)
            await passage.tell(verdict, is_denied=False)
        except BadHead as exc:
            self._note_bad(exc)
        except OverLimit as exc:
            self._note(passage.request, _of_limit(exc))
            return False
        except TooMuchWork as exc:
            self._note(passage.request, _of_work(exc))
            return False
        else:
            return await inbound.drained()
        return await _lingered(inbound)

    def _let_out(self, given: Verdict, passage: Passage) -> None:
        self._meter.connections += 1
        self._keep(given, passage.request.host.text, passage.request.port, passage.pins)

    async def _refuse(self, passage: Passage, verdict: Verdict) -> None:
        self._note(passage.request, verdict, passage.pins)
        await passage.tell(verdict, is_denied=True)

    def _require_record(self) -> None:
        """Refuse to let out what cannot be put on record."""
        try:
            self._egress.record.require()
        except SandboxError as exc:
            raise refusal("built-in: on record", exc.message, exc.remedy) from exc

    # --- what is told

    def _note_bad(self, exc: BadHead) -> None:
        self._keep(Verdict(False, "built-in: malformed request", exc.reason), exc.host, exc.port)

    def _note(
        self, request: Request | None, verdict: Verdict, pins: tuple[Address, ...] = ()
    ) -> None:
        """Keep that something did not pass."""
        host, port = ("?", 0) if request is None else (request.host.text, request.port)
        self._keep(verdict, host, port, pins)

    def _keep(self, verdict: Verdict, host: str, port: int, pins: tuple[Address, ...] = ()) -> None:
        """Keep a verdict for the record, and for the results of calls if something did not pass.

        Whatever is told of a connection is told from here, and without the session's secrets.
        """
        seen = Seen(
            session_id=self._owner.session_id,
            principal=self._owner.principal,
            host=printable(self._shown(host), MAX_HOST),
            port=port,
            allowed=verdict.allowed,
            rule=self._shown(verdict.rule),
            reason=self._shown(verdict.reason),
            addresses=pins,
            policy=self._policy,
            policy_digest=self._policy_digest,
        )
        if not verdict.allowed:
            remedy = self._shown(verdict.remedy)
            denial = Denial(
                host=seen.host, port=port, rule=seen.rule, reason=seen.reason, remedy=remedy
            )
            self.denials.add(denial)
        self._egress.record.saw(seen)


def _of_limit(exc: OverLimit) -> Verdict:
    return Verdict(
        False,
        f"limits.{exc.limit}",
        exc.reason,
        "Use fewer or smaller connections, or wait" if exc.limit != "bytes" else "",
    )


def _of_work(exc: TooMuchWork) -> Verdict:
    return Verdict(False, "built-in: work", exc.message.rstrip("."))


async def _lingered(inbound: Inbound) -> bool:
    """Let a client take what it was told; whether it has left since."""
    inbound.end()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            return await inbound.drained()
    return False
