"""A request for an operation, from its body to its answer: the token's scope, and doing once what
comes with an ``Idempotency-Key``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from sandbox.errors import SandboxError
from sandbox.server.desk import SESSION_HEADER
from sandbox.server.endpoints import whole_body
from sandbox.server.grants import Grant
from sandbox.server.http.idempotency import HEADER, PartlyDone, Replies, fingerprint_of
from sandbox.server.http.operation import EVENTS, Operation
from sandbox.server.intake import MAX_MCP_BODY
from sandbox.server.problems import problem_of, status_of

MAX_JSON_BODY = 64 * 1024
"""Of the requests that hold no code, text or file."""


class Serving:
    """Answers the requests for one operation.

    Args:
        events: The operation that answers in its place where server-sent events are accepted.
    """

    def __init__(
        self, operation: Operation, replies: Replies, events: Operation | None = None
    ) -> None:
        self._operation = operation
        self._events = events
        self._replies = replies

    async def answer(self, request: Request) -> Response:
        """Check the token's scope, take the body in, and answer: as before where the request came
        before.

        Raises:
            SandboxError: It is refused, or fails.
        """
        grant: Grant = request.scope["sandbox.grant"]
        http = self._operation.http
        self._operation.require(grant)
        if http.has_body:
            most = MAX_MCP_BODY if http.is_large else MAX_JSON_BODY
            request.state.body = await whole_body(request, most)
        if http.method == "POST" and (key := request.headers.get(HEADER)) is not None:
            return await self._once(request, grant, key)
        accepted = request.headers.get("accept", "")
        chosen = self._events if self._events and EVENTS in accepted else None
        return await (chosen or self._operation).answer(request)

    async def _once(self, request: Request, grant: Grant, key: str) -> Response:
        """Do it, unless it was done with this key before."""
        policies = "*" if grant.policies is None else "\n".join(grant.policies)
        who = {"session": request.headers.get(SESSION_HEADER, ""), "policies": policies}
        target = f"{request.url.path}?{request.url.query}"
        fingerprint = fingerprint_of(request.method, target, request.state.body, who)
        if (before := self._replies.begin(grant.principal, key, fingerprint)) is not None:
            return before
        try:
            done = await self._operation.answer(request)
            self._replies.finish(grant.principal, key, done)
        except SandboxError as exc:
            is_partly_done = isinstance(exc, PartlyDone)
            if is_partly_done or status_of(exc) in (500, 410):  # something may have been done
                self._replies.finish(grant.principal, key, problem_of(exc))
            else:
                self._replies.forget(grant.principal, key)
            raise
        except BaseException:
            self._replies.finish(grant.principal, key, None)
            raise
        return done
