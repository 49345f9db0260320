"""Reaching the person behind an MCP call: by elicitation, in both eras of the protocol.

Clients that shook hands are asked while their call is open. From 2026-07-28 on a server sends no
requests: a call *answers* that input is required, and the client calls again with the answer. The
work must not begin anew then, so a call that may ask runs in a task of its own
(:class:`ParkedCall`); what comes back finds that task again and waits on. Nothing runs twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import anyio
from mcp.server.elicitation import AcceptedElicitation, render_elicitation_schema
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    InputResponses,
)
from mcp_types.version import is_version_at_least
from pydantic import BaseModel, Field, ValidationError

from sandbox.bulkheads.shares import Owner, Shares
from sandbox.errors import Conflict, QuotaExceeded
from sandbox.outputs.plain import escaped
from sandbox.sessions.approvals import Asker, Reply

ANSWERING = "2026-07-28"
"""The protocol from which on questions are answers."""
PARKED = 256
"""Calls that wait for people's answers, in all."""
PARKED_OF_PRINCIPAL = 64
PARKED_OF_SESSION = 32
PICK_UP_S = 120.0
"""A result waits so long for the client that was asked to call again."""
MAX_VALUE = 2000
MAX_TOLD = 8000

Result = CallToolResult | InputRequiredResult


class Yes(BaseModel):
    """Agree once."""


class LastingYes(BaseModel):
    """Agree, and perhaps for longer."""

    remember: bool = Field(default=False, title="Do not ask again for this in this session")


def objection_of(ctx: Context[Any, Any]) -> str:
    """Why the client of a call cannot ask; empty when it can."""
    capabilities = ctx.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return "the client cannot ask, for it has no elicitation"
    if not answers_questions(ctx) and not ctx.session.can_send_request:
        return "this connection cannot carry a question to the client"
    return ""


def answers_questions(ctx: Context[Any, Any]) -> bool:
    """Whether the client of a call is asked by the call's answer."""
    version = ctx.protocol_version
    return version is not None and is_version_at_least(version, ANSWERING)


class OpenCall:
    """Asks the client of a call while the call is open."""

    def __init__(self, ctx: Context[Any, Any]) -> None:
        self._ctx = ctx
        self.objection = objection_of(ctx)
        if answers_questions(ctx) and not self.objection:
            self.objection = "this call began before its policy wanted anybody asked"

    async def ask(self, message: str, *, may_remember: bool) -> Reply:
        """See :class:`Asker`."""
        try:
            result = await self._ctx.elicit(message, LastingYes if may_remember else Yes)
        except (ValueError, MCPError):
            return Reply("unable", "the client did not answer as the protocol wants it")
        if not isinstance(result, AcceptedElicitation):
            return Reply("declined")
        return Reply("session" if getattr(result.data, "remember", False) else "once")


class ParkedCall:
    """A call that goes on while its client is asked: in a task of its own."""

    def __init__(self, principal: str, objection: str) -> None:
        self.call_id = secrets.token_urlsafe(24)
        self.principal = principal
        self.objection = objection
        self.scope = anyio.CancelScope()
        self.picked_up = anyio.Event()
        self._questions = 0
        self._question: tuple[str, ElicitRequest] | None = None
        self._reply: Reply | None = None
        self._result: Result | None = None
        self._error: Exception | None = None
        self._changed = anyio.Event()

    async def ask(self, message: str, *, may_remember: bool) -> Reply:
        """See :class:`Asker`."""
        schema = render_elicitation_schema(LastingYes if may_remember else Yes)
        params = ElicitRequestFormParams(message=message, requested_schema=schema)
        self._questions += 1
        self._question = f"approval-{self._questions}", ElicitRequest(params=params)
        self._reply = None
        self._bump()
        try:
            while self._reply is None:
                await self._changed.wait()
            return self._reply
        finally:
            self._question = None

    def answer(self, responses: InputResponses | None) -> None:
        """Take what the client sent along when it called again."""
        if self._question is None or responses is None:
            return  # too late: it was a no by then
        given = responses.get(self._question[0])
        if given is None:
            return
        self._question = None
        self._reply = _reply(given)
        self._bump()

    def finish(self, result: Result | None, error: Exception | None) -> None:
        """It has ended."""
        self._result, self._error = result, error
        self._bump()

    async def outcome(self) -> Result:
        """Wait for its end, or for a question; giving this up gives up the call."""
        try:
            while True:
                if self._error is not None or self._result is not None:
                    self.picked_up.set()
                if self._error is not None:
                    raise self._error
                if self._result is not None:
                    return self._result
                if self._question is not None:
                    key, request = self._question
                    return InputRequiredResult(
                        input_requests={key: request}, request_state=self.call_id
                    )
                await self._changed.wait()
        except anyio.get_cancelled_exc_class():
            self.scope.cancel()
            self.picked_up.set()  # nobody is left who would
            raise

    def _bump(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class Parking:
    """The calls that go on while their clients are asked.

    ``start`` runs something in a task that lasts as long as it needs, or the controller.
    """

    def __init__(self, start: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]) -> None:
        self._start = start
        self._calls: dict[str, ParkedCall] = {}
        self._places = Shares(
            "calls that may wait for a person's answer",
            PARKED,
            PARKED_OF_PRINCIPAL,
            PARKED_OF_SESSION,
        )

    async def begin(
        self, owner: Owner, objection: str, work: Callable[[], Awaitable[Result]]
    ) -> Result:
        """Run a call, and return its result or the first question.

        Raises:
            QuotaExceeded: The session, the principal or all of them have too many.
        """
        if why := self._places.take(owner):
            raise QuotaExceeded(
                f"The call was not begun: {why}.",
                remedy="Answer or give up calls that ask, or wait until they are over.",
            )
        call = ParkedCall(owner.principal, objection)
        self._calls[call.call_id] = call
        self._start(lambda: self._run(call, owner, work))
        return await call.outcome()

    async def resume(
        self, principal: str, call_id: str, responses: InputResponses | None
    ) -> Result:
        """Go on with a call whose client comes back with an answer.

        Raises:
            Conflict: There is no such call any more; nothing was run.
        """
        call = self._calls.get(call_id)
        if call is None or call.principal != principal:
            raise Conflict(
                "The call that asked is over; nothing was run again.",
                remedy="Look at what became of it before you call anew.",
            )
        call.answer(responses)
        return await call.outcome()

    async def _run(
        self, call: ParkedCall, owner: Owner, work: Callable[[], Awaitable[Result]]
    ) -> None:
        result, error = None, None
        try:
            with call.scope, asking_through(call):
                try:
                    result = await work()
                except Exception as exc:  # it is the caller's, who waits for it
                    error = exc
        finally:
            if result is None and error is None:
                error = ToolError("The call was given up.")
            call.finish(result, error)
            try:
                with anyio.move_on_after(PICK_UP_S):
                    await call.picked_up.wait()
            finally:
                del self._calls[call.call_id]
                self._places.give(owner)


_asker: ContextVar[Asker | None] = ContextVar("asker", default=None)


@contextmanager
def asking_through(asker: Asker) -> Generator[None]:
    """Let what the block does ask through this call."""
    token = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(token)


def asker_for(ctx: Context[Any, Any]) -> Asker:
    """What reaches the person behind the present call."""
    return _asker.get() or OpenCall(ctx)


def told(arguments: dict[str, Any]) -> str:
    """The arguments of a call for a person to read: bounded, and nothing but visible characters."""
    lines: list[str] = []
    for name, value in arguments.items():
        if name == "session_id" or value in ("", None, (), []):
            continue
        text = value if isinstance(value, str) else repr(value)
        more = len(text) - MAX_VALUE
        shown = escaped(text[:MAX_VALUE], kept="\t\n").replace("\n", "\n  | ")
        lines.append(f"{escaped(name)}:\n  | {shown}")
        if more > 0:
            lines.append(f"  and {more:,} MORE CHARACTERS THAT ARE NOT SHOWN")
    whole = "\n".join(lines)
    return whole if len(whole) <= MAX_TOLD else f"{whole[:MAX_TOLD]}\nAND MORE THAT IS NOT SHOWN"


def _reply(given: Any) -> Reply:
    if not isinstance(given, ElicitResult):
        return Reply("unable", "the client did not answer as the protocol wants it")
    if given.action != "accept":
        return Reply("declined")
    try:
        data = LastingYes.model_validate(given.content or {})
    except ValidationError:
        return Reply("unable", "the client did not answer as the protocol wants it")
    return Reply("session" if data.remember else "once")
