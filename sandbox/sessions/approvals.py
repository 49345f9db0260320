"""Asking a person before something happens, as the session's policy wants it.

The person is reached through a call of the session that is under way: nobody else is there to be
asked. Whatever is not a yes is a no: an answer that does not come in time, a client that cannot
ask, a call that ends. Nothing that runs inside, and no tool, can answer.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol
from weakref import WeakKeyDictionary

import anyio

from sandbox.audit import ApprovalEntry, AuditLog
from sandbox.egress.wayout import Approval, Question
from sandbox.errors import NotPermitted
from sandbox.outputs.plain import escaped
from sandbox.outputs.redaction import Redactor
from sandbox.policy import Policy

_TOOL = "tool "
REFUSED_S = 10.0
"""After a no, the same destination is refused for so long without asking: code tries again at once,
and a person shall not have to answer a flood."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of asking.

    Args:
        decision: ``once``, ``session`` (and do not ask again), a no of the person's, or that nobody
            could be asked.
        reason: Why nobody could be.
    """

    decision: Literal["once", "session", "declined", "unable"]
    reason: str = ""


class Asker(Protocol):
    """Reaches the person behind one call."""

    @property
    def objection(self) -> str:
        """Why it cannot ask; empty when it can."""
        ...

    async def ask(self, message: str, *, may_remember: bool) -> Reply:
        """Ask, and wait for the answer; the caller sees to the time.

        Args:
            message: The question, in lines without control characters.
            may_remember: Whether the person may answer for the rest of the session.
        """
        ...


class _Nobody:
    """Where no call is under way."""

    objection = "no call of this session is under way, so nobody could be asked"

    async def ask(self, message: str, *, may_remember: bool) -> Reply:
        return Reply("unable", self.objection)


class Approvals:
    """What one session asks; an ``Approver`` for its gateway. Nothing shown has a secret in it."""

    def __init__(
        self,
        session_id: str,
        principal: str,
        policy: Policy,
        audit: AuditLog,
        redactor: Redactor | None = None,
    ) -> None:
        self._session_id = session_id
        self._principal = principal
        self._policy = policy
        self._audit = audit
        self._shown = (redactor or Redactor()).text
        self._calls: dict[Asker, set[anyio.CancelScope]] = {}
        self._turns: WeakKeyDictionary[Asker, anyio.Lock] = WeakKeyDictionary()
        """One question at a time through each call; calls do not wait for each other."""
        self._same: dict[str, anyio.Lock] = {}
        self._asking = 0
        self._granted: set[str] = set()
        self._refused: dict[str, float] = {}

    @property
    def is_asking(self) -> bool:
        """Whether an answer is awaited."""
        return self._asking > 0

    @contextmanager
    def calling(self, asker: Asker) -> Generator[None]:
        """A call is under way for the time of the block; what it asks then ends with it."""
        self._calls[asker] = set()
        try:
            yield
        finally:
            for scope in self._calls.pop(asker):
                scope.cancel()

    async def agree(self, tool: str, told: str, asker: Asker) -> None:
        """Have a person agree to the call of a tool, if the policy wants that; they are told what
        it will do.

        Raises:
            NotPermitted: There is no yes; nothing has run.
        """
        if tool not in self._policy.approve.tools:
            return
        message = (
            f"Allow {tool} in the session {self._session_id} (policy {self._policy.name})?\n{told}"
        )
        answer = await self._decide(f"{_TOOL}{tool}", message, asker)
        if not answer.allowed:
            raise NotPermitted(
                f"{tool} was not run: the policy {self._policy.name!r} wants a person to agree, "
                f"and {answer.reason}.",
                remedy=answer.remedy,
            )

    async def ask(self, question: Question) -> Approval:
        """Have a person agree to a connection; see ``Approver`` of ``sandbox.egress``."""
        subject = f"network {question.destination}"
        if time.monotonic() < self._refused.get(subject, 0):
            return Approval(False, "a person declined it a moment ago")
        able = [call for call in self._calls if not call.objection]
        free = [call for call in able if not self._turn(call).locked()]
        asker: Asker = next(reversed(free or able or [*self._calls] or [_Nobody()]))
        message = (
            f"Allow a connection to {question.destination} from the session {self._session_id} "
            f"(policy {self._policy.name})?\nRule: {question.rule}"
        )
        if question.request:
            message += f"\nRequest: {escaped(question.request[:500])}"
        return await self._decide(subject, message, asker)

    async def _decide(self, subject: str, message: str, asker: Asker) -> Approval:
        if subject in self._granted:
            return Approval(True)
        reply: Reply | None = None
        was_put = False
        with anyio.move_on_after(self._policy.approve.timeout_s):
            async with self._turn_for(subject, asker):
                if subject in self._granted:
                    return Approval(True)
                if time.monotonic() < self._refused.get(subject, 0):
                    return Approval(False, "a person declined it a moment ago")
                was_put = True
                reply = await self._put(subject, self._shown(message), asker)
        return self._answered(subject, reply, was_put=was_put)

    def _turn(self, asker: Asker) -> anyio.Lock:
        return self._turns.setdefault(asker, anyio.Lock())

    @asynccontextmanager
    async def _turn_for(self, subject: str, asker: Asker) -> AsyncGenerator[None]:
        """Wait until the call has no other question, and no connection there is asked about."""
        same = self._same.setdefault(subject, anyio.Lock())
        try:
            async with nullcontext() if subject.startswith(_TOOL) else same, self._turn(asker):
                self._asking += 1
                try:
                    yield
                finally:
                    self._asking -= 1
        finally:
            if not same.locked():
                self._same.pop(subject, None)

    async def _put(self, subject: str, message: str, asker: Asker) -> Reply:
        """Put the question, for as long as the call lasts that it goes through."""
        if asker.objection:
            return Reply("unable", asker.objection)
        with anyio.CancelScope() as scope:
            if asker in self._calls:
                self._calls[asker].add(scope)
            self._record(subject, "asked")
            try:
                may_remember = self._policy.approve.remember == "session"
                return await asker.ask(message, may_remember=may_remember)
            finally:
                self._calls.get(asker, set()).discard(scope)
        return Reply("unable", "the call through which the person was asked ended")

    def _answered(self, subject: str, reply: Reply | None, *, was_put: bool) -> Approval:
        if reply is None:
            timeout_s = self._policy.approve.timeout_s
            if not was_put:
                why = f"it was not put in {timeout_s:g} s, for another question was not answered"
                self._record(subject, "denied", why)
                return Approval(False, why)
            self._record(subject, "timeout", f"no answer within {timeout_s:g} s")
            return Approval(False, f"nobody answered within {timeout_s:g} s")
        match reply.decision:
            case "session":
                if self._policy.approve.remember == "session":
                    self._granted.add(subject)
                self._record(subject, "approved", "for the session")
                return Approval(True)
            case "once":
                self._record(subject, "approved")
                return Approval(True)
            case "declined":
                if not subject.startswith(_TOOL):  # the next call is another question
                    self._refused[subject] = time.monotonic() + REFUSED_S
                self._record(subject, "denied", "declined")
                return Approval(False, "the person declined")
            case "unable":
                self._record(subject, "denied", reply.reason)
                return Approval(
                    False, reply.reason, "Use a client that can ask (MCP elicitation) in the call"
                )

    def _record(self, subject: str, decision: str, reason: str = "") -> None:
        self._audit.record(
            ApprovalEntry(
                decision=decision,
                principal=self._principal,
                session_id=self._session_id,
                subject=self._shown(subject),
                decided_by=self._principal if decision == "approved" else "",
                reason=reason,
            )
        )
