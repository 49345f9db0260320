"""Asking a person before something happens, as the session's policy wants it.

The person is reached through a call of the session that is under way: nobody else is there to be
asked. Whatever is not a yes is a no: an answer that does not come in time, a client that cannot
ask, a call that ends. Nothing that runs inside, and no tool, can answer.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import anyio

from sandbox.audit import ApprovalEntry, AuditLog
from sandbox.egress import Answer, Question
from sandbox.errors import NotPermitted
from sandbox.policy import Policy

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
    """What one session asks; an ``Approver`` for its gateway.

    Args:
        session_id: The session's id.
        principal: Whose it is.
        policy: Its policy.
        audit: Where questions and answers are put on record.
    """

    def __init__(self, session_id: str, principal: str, policy: Policy, audit: AuditLog) -> None:
        self._session_id = session_id
        self._principal = principal
        self._policy = policy
        self._audit = audit
        self._calls: dict[Asker, set[anyio.CancelScope]] = {}
        self._turn = anyio.Lock()
        """One question at a time."""
        self._granted: set[str] = set()
        self._refused: dict[str, float] = {}

    @property
    def is_asking(self) -> bool:
        """Whether an answer is awaited."""
        return self._turn.locked()

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
        """Have a person agree to the call of a tool, if the policy wants that.

        Args:
            tool: Its name.
            told: What it will do, as it is shown.
            asker: Reaches the person behind this call.

        Raises:
            NotPermitted: There is no yes; nothing has run.
        """
        if tool not in self._policy.approve.tools:
            return
        message = (
            f"Allow {tool} in the session {self._session_id} (policy {self._policy.name})?\n{told}"
        )
        answer = await self._decide(f"tool {tool}", message, asker)
        if not answer.allowed:
            raise NotPermitted(
                f"{tool} was not run: the policy {self._policy.name!r} wants a person to agree, "
                f"and {answer.reason}.",
                remedy=answer.remedy,
            )

    async def ask(self, question: Question) -> Answer:
        """Have a person agree to a connection; see ``Approver`` of ``sandbox.egress``."""
        subject = f"network {question.destination}"
        if time.monotonic() < self._refused.get(subject, 0):
            return Answer(False, "a person declined it a moment ago")
        able = [call for call in self._calls if not call.objection]
        asker: Asker = next(reversed(able or [*self._calls] or [_Nobody()]))
        message = (
            f"Allow a connection to {question.destination} from the session {self._session_id} "
            f"(policy {self._policy.name})?\nRule: {question.rule}"
        )
        if question.request:
            message += f"\nRequest: {_line(question.request)}"
        answer = await self._decide(subject, message, asker)
        return answer

    async def _decide(self, subject: str, message: str, asker: Asker) -> Answer:
        if subject in self._granted:
            return Answer(True)
        reply: Reply | None = None
        with anyio.move_on_after(self._policy.approve.timeout_s):
            async with self._turn:
                if subject in self._granted:
                    return Answer(True)
                if time.monotonic() < self._refused.get(subject, 0):
                    return Answer(False, "a person declined it a moment ago")
                reply = await self._put(subject, message, asker)
        return self._answered(subject, reply)

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

    def _answered(self, subject: str, reply: Reply | None) -> Answer:
        if reply is None:
            timeout_s = self._policy.approve.timeout_s
            self._record(subject, "timeout", f"no answer within {timeout_s:g} s")
            return Answer(False, f"nobody answered within {timeout_s:g} s")
        match reply.decision:
            case "session":
                if self._policy.approve.remember == "session":
                    self._granted.add(subject)
                self._record(subject, "approved", "for the session")
                return Answer(True)
            case "once":
                self._record(subject, "approved")
                return Answer(True)
            case "declined":
                if not subject.startswith("tool "):  # the next call is another question
                    self._refused[subject] = time.monotonic() + REFUSED_S
                self._record(subject, "denied", "declined")
                return Answer(False, "the person declined")
            case "unable":
                self._record(subject, "denied", reply.reason)
                return Answer(
                    False, reply.reason, "Use a client that can ask (MCP elicitation) in the call"
                )

    def _record(self, subject: str, decision: str, reason: str = "") -> None:
        self._audit.record(
            ApprovalEntry(
                decision=decision,
                principal=self._principal,
                session_id=self._session_id,
                subject=subject,
                decided_by=self._principal if decision == "approved" else "",
                reason=reason,
            )
        )


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:500])
