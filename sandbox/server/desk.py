"""Who calls, and the session they mean: what every tool needs first."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import anyio
from mcp.server.mcpserver import Context
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.requests import Request

from sandbox.audit import about
from sandbox.commands.models import CommandResult
from sandbox.errors import InvalidRequest, NotFound, NotPermitted
from sandbox.kernels.models import ExecutionResult
from sandbox.policy import Policy
from sandbox.server.elicitation import asker_for, told
from sandbox.server.foreign import is_foreign
from sandbox.server.grants import LOCAL_GRANT, Grant
from sandbox.server.hosts import Shaping
from sandbox.server.http.calling import is_over_http
from sandbox.server.tokens import TokenStore
from sandbox.sessions.approvals import Asker
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller, ExecutionSummary, passing_key
from sandbox.sessions.session import Session

SESSION_HEADER = "sandbox-session"
LEGACY_SESSION_HEADER = "mcp-session-id"
VERSION_HEADER = "mcp-protocol-version"
RESULTS = "get_execution"
"""What a policy must allow where executions are listed."""
EXPORT = ("export_session", RESULTS, "get_command")
"""What it must allow where all that ran is answered as one."""
MAX_KEY = 200
ASKING_INTERVAL_S = 0.25
"""Between two looks at what a call waits for that would be over but for a question to a person."""


class Desk:
    """Takes calls to the session manager.

    Args:
        tokens: Where tokens for shared notebooks are made; None: nobody shares any.
    """

    def __init__(
        self,
        manager: SessionManager,
        shaping: Shaping | None = None,
        tokens: TokenStore | None = None,
    ) -> None:
        self.manager = manager
        self.tokens = tokens
        self.shaping = shaping or Shaping()
        self.is_stopping = False
        self._waits: set[anyio.CancelScope] = set()

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Wait for something that may take long, but not beyond :meth:`stop`."""
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            if self.is_stopping:
                scope.cancel()
            try:
                yield
            finally:
                self._waits.discard(scope)

    def stop(self) -> None:
        """The server stops: whoever waits gets what there is, and nothing is interrupted for it."""
        self.is_stopping = True
        for scope in tuple(self._waits):
            scope.cancel()

    @asynccontextmanager
    async def session(
        self, ctx: Context[Any, Any], session_id: str, *tools: str
    ) -> AsyncGenerator[Session]:
        """A session of the caller's for one call of a tool; without an id the default one.

        Args:
            tools: The tool, and others whose answers it gives too.

        Raises:
            NotFound: The caller has no such session.
            NotPermitted: The session's policy does not allow one of the tools.
            SessionLost: Its container is gone.
        """
        session = await self.manager.get(caller_of(ctx), session_id)
        for tool in tools:
            permit_here(ctx, session.policy, tool)
        async with session.use(), _asked(ctx, session, *tools):
            yield session

    def policy_of(self, caller: Caller, session_id: str) -> Policy:
        """The policy of one of the caller's sessions, open or ended, which a call is about: the
        record of that says so.

        Raises:
            NotFound: The caller has no such session.
            NotPermitted: It has ended, and what its policy allowed is no longer known.
        """
        policy = self.manager.ownership.policy_of(caller, session_id)
        about(session_id, policy.name, policy.digest)
        return policy

    async def executions(self, ctx: Context[Any, Any], session_id: str) -> list[ExecutionSummary]:
        """What ran last in one of the caller's sessions, or in all where it may be asked for.

        A policy allows it where it allows to ask for an execution.

        Raises:
            NotFound: The caller has no such session.
            NotPermitted: The session's policy does not allow it.
        """
        caller = caller_of(ctx)
        await self.manager.ready()
        if session_id:
            policy = self.policy_of(caller, session_id)
            permit_here(ctx, policy, RESULTS)
            if RESULTS in policy.approve.tools:
                session = await self.manager.get(caller, session_id)
                async with _asked(ctx, session, RESULTS):
                    return await self.manager.history.executions(caller, session_id, may_list)
        return await self.manager.history.executions(caller, session_id, may_list)

    def gave_up(self, ctx: Context[Any, Any]) -> bool:
        """Whether a call that was cancelled was given up by its client, in so many words.

        A lost connection is no such word. Where it is the only one, as over HTTP since 2026-07-28,
        the call is over and what it began goes on.
        """
        is_stream = ctx.request_context.request is not None
        version = ctx.request_context.protocol_version
        is_lost = is_stream and version not in HANDSHAKE_PROTOCOL_VERSIONS
        return not (is_lost or self.is_stopping)

    @asynccontextmanager
    async def session_of(
        self,
        ctx: Context[Any, Any],
        found: ExecutionResult | CommandResult,
        tool: str,
        session_id: str = "",
    ) -> AsyncGenerator[Session | None]:
        """The session of an execution or a command, for one call of a tool about that.

        None when that is over, unless a person must agree to the tool. What a policy does not
        allow it does not allow for what has ended either.

        Args:
            session_id: Which session it must be; any when empty.

        Raises:
            NotFound: The caller has no such session, or it is not that one.
            NotPermitted: The session's policy does not allow the tool.
        """
        if session_id not in ("", found.session_id):
            raise NotFound(
                "It did not run in that session.",
                remedy="Leave session_id out, or give the one that the result named.",
            )
        caller = caller_of(ctx)
        policy = self.policy_of(caller, found.session_id)
        permit_here(ctx, policy, tool)
        if found.status != "running" and tool not in policy.approve.tools:
            yield None
        else:
            session = await self.manager.get(caller, found.session_id)
            async with _asked(ctx, session, tool):
                yield session


@asynccontextmanager
async def _asked(ctx: Context[Any, Any], session: Session, *tools: str) -> AsyncGenerator[None]:
    """Let what a call does ask through the call, first of all whether it may be done.

    Raises:
        NotPermitted: The policy wants a person to agree, and there is no yes.
    """
    asker = asker_for(ctx)
    with session.approvals.calling(asker):
        await _agree(ctx, session, asker, tools, {})
        yield


async def agree(
    ctx: Context[Any, Any], session: Session, tools: Sequence[str], shown: Mapping[str, str]
) -> None:
    """Have a person agree to a call under way that does what these tools do.

    Args:
        shown: What the person must see besides the call's arguments.

    Raises:
        NotPermitted: The policy wants a person to agree, and there is no yes.
    """
    await _agree(ctx, session, asker_for(ctx), tools, shown)


async def _agree(
    ctx: Context[Any, Any],
    session: Session,
    asker: Asker,
    tools: Sequence[str],
    shown: Mapping[str, str],
) -> None:
    params: Mapping[str, Any] = ctx.request_context.params or {}
    sent = cast("dict[str, Any]", params.get("arguments") or {})
    given = {name: value for name, value in sent.items() if not is_foreign(name)}
    for tool in tools:
        await session.approvals.agree(tool, told({**given, **shown}), asker)


def permit_here(ctx: Context[Any, Any], policy: Policy, tool: str) -> None:
    """Refuse what a session's policy does not allow, or not without asking where nobody can be.

    Raises:
        NotPermitted: It does not.
    """
    (permit_unasked if is_over_http(ctx) else permit)(policy, tool)


def may_list(policy: Policy) -> bool:
    """Whether what ran under a policy is listed with all else, without asking anybody."""
    return policy.allows(RESULTS) and RESULTS not in policy.approve.tools


def permit_unasked(policy: Policy, tool: str) -> None:
    """Refuse what a session's policy does not allow, or not without asking: nobody can be here.

    Raises:
        NotPermitted: It does not.
    """
    permit(policy, tool)
    if tool in policy.approve.tools:
        raise NotPermitted(
            f"The policy {policy.name!r} wants a person to agree to each {tool}, and over "
            "REST nobody can be asked.",
            remedy=f"Call the tool {tool} over MCP, with a client that can ask.",
        )


def permit(policy: Policy, tool: str) -> None:
    """Refuse a tool that a session's policy does not allow.

    Raises:
        NotPermitted: It does not.
    """
    if not policy.allows(tool):
        raise NotPermitted(
            f"The policy {policy.name!r} of this session does not allow {tool}.",
            remedy=f"It allows: {', '.join(sorted(policy.tools))}.",
        )


def grant_of(ctx: Context[Any, Any]) -> Grant:
    """What the token of an MCP call grants; over stdio that is everything."""
    return grant_of_request(cast(Request | None, ctx.request_context.request))


def caller_of(ctx: Context[Any, Any]) -> Caller:
    """Who makes an MCP call; over stdio there is one caller.

    Raises:
        InvalidRequest: The header that names the default session is malformed.
    """
    request = cast(Request | None, ctx.request_context.request)
    return LOCAL_GRANT.caller() if request is None else caller_of_request(request)


def caller_of_request(request: Request) -> Caller:
    """Who makes an HTTP request that has passed the gate.

    Raises:
        InvalidRequest: The header that names the default session is malformed.
    """
    grant = grant_of_request(request)
    return grant.caller(_default_key(request.headers, grant.token_id))


def grant_of_request(request: Request | None) -> Grant:
    """What the token of an HTTP request that has passed the gate grants; None is stdio's."""
    if request is None:
        return LOCAL_GRANT
    grant: Grant = request.scope["sandbox.grant"]
    return grant


def _default_key(headers: Mapping[str, str], token_id: str) -> str:
    """What tells the default sessions of one principal apart."""
    own, legacy = headers.get(SESSION_HEADER), headers.get(LEGACY_SESSION_HEADER)
    version = headers.get(VERSION_HEADER, "")
    if version and version not in HANDSHAKE_PROTOCOL_VERSIONS:
        legacy = None  # it means nothing any more
    key = f"header:{own}" if own else passing_key(token_id, legacy) if legacy else ""
    if len(key) > MAX_KEY or not key.isprintable():
        raise InvalidRequest(
            f"The header {SESSION_HEADER} is too long or not printable text.",
            remedy=f"Send a name of your own of up to {MAX_KEY - 7} characters, or leave it out.",
        )
    return key
