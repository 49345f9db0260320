"""What is at a path, and what is not: every request is put on record, every error answered."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.audit import DEFECT, AuditLog, Call, recorded
from sandbox.errors import InvalidRequest, SandboxError, TooMuchWork
from sandbox.server.auth import DOCS_PATH, GUARDED
from sandbox.server.grants import Grant
from sandbox.server.problems import problem, problem_of

ALWAYS_SERVED = frozenset(
    {"GET /sessions", "GET /sessions/{session_id}", "DELETE /sessions/{session_id}"}
)
"""What works when nothing can be put on record: to look at sessions, and to close them."""

Endpoint = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger(__name__)


class Endpoints:
    """The endpoints of one path: puts each request on record, and answers errors as problems,
    or in another form that a front has for them."""

    def __init__(
        self,
        path: str,
        methods: dict[str, Endpoint],
        audit: AuditLog,
        refusal: Callable[[SandboxError], Response] = problem_of,
    ) -> None:
        self._refusal = refusal
        self._path = path.removeprefix(GUARDED)
        self._methods = methods
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; its record is written when the answer has gone out."""
        scope.setdefault("state", {})
        request = Request(scope, receive, send)
        method = "GET" if request.method == "HEAD" else request.method
        tool = f"{method} {self._path}"
        asked = _arguments(request)
        grant: Grant = scope["sandbox.grant"]
        with recorded(self._audit, "rest", tool, asked, grant.principal, grant.token_id) as call:
            call.session_id = request.path_params.get("session_id", "")
            response = await self._answer(request, call, tool)
            asked["body"] = getattr(request.state, "body_digest", "")
            await response(scope, receive, send)

    async def _answer(self, request: Request, call: Call, tool: str) -> Response:
        try:
            if tool not in ALWAYS_SERVED:
                self._audit.require()
            response = await self._methods[tool.partition(" ")[0]](request)
        except SandboxError as exc:
            call.raised(exc)
            return self._refusal(exc)
        except Exception:  # the outermost edge of a request
            logger.exception("%s %s", request.method, request.url.path)
            call.failed(DEFECT)
            return problem(500, "A defect of the server; its log has the details.")
        if response.status_code >= 400:
            call.failed(f"http_{response.status_code}")
        elif told := getattr(request.state, "ended", None):
            call.ended(*told)
        return response


async def whole_body(request: Request, most: int) -> bytes:
    """The bytes of a body, which will be on record by their digest.

    Raises:
        TooMuchWork: It is longer than ``most`` bytes.
        InvalidRequest: Its client has gone before its end; nobody hears of that.
    """
    data = bytearray()
    try:
        async for piece in request.stream():
            data += piece
            if len(data) > most:
                raise TooMuchWork(f"The body is longer than {most:,} bytes.")
    except ClientDisconnect as exc:
        raise InvalidRequest("The body has no end.") from exc
    request.state.body_digest = hashlib.sha256(data).hexdigest()
    return bytes(data)


class Astray:
    """Answers requests that no endpoint is for."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    async def absent(self, request: Request, exc: Exception) -> Response:
        """The answer when there is nothing at a path."""
        self._record(request, "not_found")
        return problem(
            404, "There is nothing here.", f"MCP is at {GUARDED}, the rest at {DOCS_PATH}."
        )

    async def wrong_method(self, request: Request, exc: Exception) -> Response:
        """The answer when what is there knows no such method."""
        self._record(request, "method_not_allowed")
        headers: dict[str, str] | None = getattr(exc, "headers", None)
        return problem(405, f"{request.method} means nothing here.", headers=headers)

    def _record(self, request: Request, code: str) -> None:
        grant: Grant | None = request.scope.get("sandbox.grant")
        if grant is None:
            return  # beside what is guarded, where nothing is done for anybody
        tool, asked = f"{request.method} {request.url.path}", _arguments(request)
        with recorded(self._audit, "rest", tool, asked, grant.principal, grant.token_id) as call:
            call.ended("refused", code)


def _arguments(request: Request) -> dict[str, Any]:
    """What a request asks for, as far as its address and headers say it."""
    headers = {name: request.headers.get(name, "") for name in ("range", "if-match")}
    return {"path": request.url.path, "query": request.url.query, **headers}
