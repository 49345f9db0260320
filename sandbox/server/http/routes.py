"""The operations as routes of FastAPI."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from sandbox.audit import AuditLog
from sandbox.server.auth import GUARDED
from sandbox.server.endpoints import Endpoint, Endpoints
from sandbox.server.http.idempotency import Replies
from sandbox.server.http.operation import Operation
from sandbox.server.http.serving import Serving


class Place(APIRoute):
    """The route of an operation. A path means the same with a slash at its end."""

    def __init__(
        self, operation: Operation, answer: Endpoint, audit: AuditLog, allowed: Iterable[str]
    ) -> None:
        http = operation.http
        super().__init__(
            GUARDED + http.path,
            operation.answer,
            methods=[http.method],
            name=operation.name,
            response_model=None,
        )
        self.app = Endpoints(GUARDED + http.path, {http.method: answer}, audit)
        self._allowed = ", ".join(sorted(allowed))
        # Not with $, which also takes a line feed behind it.
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"/?\Z")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See ``Route``; to ask for the headers alone is to ask."""
        return super().matches({**scope, "method": "GET"} if _is_head(scope) else scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ``Route``."""
        if ("GET" if _is_head(scope) else scope["method"]) not in (self.methods or ()):
            raise HTTPException(405, headers={"Allow": self._allowed})
        await self.app(scope, receive, send)


def _is_head(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] == "HEAD"


def places_of(operations: Iterable[Operation], audit: AuditLog, replies: Replies) -> list[APIRoute]:
    """The routes: words before names, so that what a word allows is told of it, and at the end
    those that take any path behind a prefix."""
    found = sorted(operations, key=lambda each: _openness(each.http.path))
    by_path: dict[str, dict[str, Operation]] = {}
    for each in found:
        methods = by_path.setdefault(each.http.path, {})
        if each.http.method in methods:
            raise AssertionError(f"{each.name} is where {methods[each.http.method].name} is")
        methods[each.http.method] = each
    return [
        Place(
            each,
            Serving(each, replies, _events_of(each, by_path)).answer,
            audit,
            _allowed(by_path[each.http.path]),
        )
        for each in found
    ]


def _openness(path: str) -> int:
    """How much else the last part of a path may be: nothing, any word, anything."""
    return 2 if path.endswith(":path}") else int(path.endswith("}"))


def _events_of(
    operation: Operation, by_path: Mapping[str, Mapping[str, Operation]]
) -> Operation | None:
    if operation.http.method != "GET":
        return None
    return by_path.get(f"{operation.http.path}/events", {}).get("GET")


def _allowed(methods: Iterable[str]) -> set[str]:
    return {*methods, *(("HEAD",) if "GET" in methods else ())}
