"""A request for an operation, from its body to its answer: on record, with every error answered."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from starlette.datastructures import State
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.audit import DEFECT, AuditLog, Call, recorded
from sandbox.errors import SandboxError, TooMuchWork
from sandbox.server.desk import SESSION_HEADER
from sandbox.server.grants import Grant
from sandbox.server.http.idempotency import HEADER, Replies, fingerprint_of
from sandbox.server.http.operation import EVENTS, Operation
from sandbox.server.intake import MAX_MCP_BODY
from sandbox.server.problems import problem, problem_of, status_of

MAX_JSON_BODY = 64 * 1024
"""Of the requests that hold no code, text or file."""
ALWAYS_SERVED = frozenset(
    {"GET /sessions", "GET /sessions/{session_id}", "DELETE /sessions/{session_id}"}
)
"""What works when nothing can be put on record: to look at sessions, and to close them."""

logger = logging.getLogger(__name__)


class Serving:
    """Answers the requests for one operation.

    Args:
        events: The operation that answers in its place where server-sent events are accepted.
    """

    def __init__(
        self,
        operation: Operation,
        audit: AuditLog,
        replies: Replies,
        events: Operation | None = None,
    ) -> None:
        self._operation = operation
        self._events = events
        self._audit = audit
        self._replies = replies
        self._name = f"{operation.http.method} {operation.http.path}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; its record is written when the answer has gone out."""
        scope.setdefault("state", {})
        request = Request(scope, receive, send)
        about = asked_of(request)
        grant: Grant = scope["sandbox.grant"]
        with recorded(
            self._audit, "rest", self._name, about, grant.principal, grant.token_id
        ) as call:
            call.session_id = request.path_params.get("session_id", "")
            response = await self._answer(request, grant, call)
            about["body"] = _digest(request.state)
            await response(scope, receive, send)

    async def _answer(self, request: Request, grant: Grant, call: Call) -> Response:
        try:
            if self._name not in ALWAYS_SERVED:
                self._audit.require()
            grant.require_scope(self._operation.scope, self._name)
            response = await self._once(request, grant)
        except SandboxError as exc:
            call.raised(exc)
            return problem_of(exc)
        except ClientDisconnect:
            call.failed("disconnected")
            return Response(status_code=400)  # nobody reads it; nothing was begun
        except Exception:  # the outermost edge of a request
            logger.exception("%s %s", request.method, request.url.path)
            call.failed(DEFECT)
            return problem(500, "A defect of the server; its log has the details.")
        failed, status = getattr(request.state, "ended", (False, ""))
        if response.status_code >= 400:
            call.failed(f"http_{response.status_code}")
        else:
            call.ended("failed" if failed else "ok", status)
        return response

    async def _once(self, request: Request, grant: Grant) -> Response:
        """Answer it; where it has a key, as it was answered before."""
        operation = self._operation
        if operation.http.has_body:
            request.state.body = await self._body(request)
        key = request.headers.get(HEADER)
        if key is None or operation.http.method != "POST":
            accepted = request.headers.get("accept", "")
            chosen = self._events if self._events and EVENTS in accepted else None
            return await (chosen or operation).answer(request)
        policies = "*" if grant.policies is None else "\n".join(grant.policies)
        who = {"session": request.headers.get(SESSION_HEADER, ""), "policies": policies}
        target = f"{request.url.path}?{request.url.query}"
        fingerprint = fingerprint_of(request.method, target, request.state.body, who)
        if (before := self._replies.begin(grant.principal, key, fingerprint)) is not None:
            return before
        try:
            done = await operation.answer(request)
            self._replies.finish(grant.principal, key, done)
        except SandboxError as exc:
            if status_of(exc) in (500, 410):  # something may have been done
                self._replies.finish(grant.principal, key, problem_of(exc))
            else:
                self._replies.forget(grant.principal, key)
            raise
        except BaseException:
            self._replies.finish(grant.principal, key, None)
            raise
        return done

    async def _body(self, request: Request) -> bytes:
        """The whole body, which what stands before this has bounded in time and number.

        Raises:
            TooMuchWork: It is too long.
        """
        most = MAX_MCP_BODY if self._operation.http.is_large else MAX_JSON_BODY
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > most:
                raise TooMuchWork(f"The body is longer than {most:,} bytes.")
        return bytes(data)


def asked_of(request: Request) -> dict[str, Any]:
    """What a request asks for, as far as its address and headers say it."""
    headers = {name: request.headers.get(name, "") for name in ("range", "if-match")}
    return {"path": request.url.path, "query": request.url.query, **headers}


def _digest(state: State) -> str:
    body: bytes = getattr(state, "body", b"")
    return hashlib.sha256(body).hexdigest() if body else ""
