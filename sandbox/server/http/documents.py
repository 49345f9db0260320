"""What there is over HTTP, for programs (OpenAPI 3.1) and for people: the same for everybody.

Both are made of the table of operations alone, so they tell nothing of this controller, and no
token is needed to read them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.server.auth import DOCS_PATH, OPENAPI_PATH
from sandbox.server.http.openapi import openapi_of
from sandbox.server.http.operation import JSON, Operation
from sandbox.server.http.reference import STYLE, page_of

MAX_AGE_S = 300


class Documents:
    """The two documents, each made when it is first asked for."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations

    def routes(self) -> list[Route]:
        """Where they are."""
        return [Route(OPENAPI_PATH, self._json), Route(DOCS_PATH, self._page)]

    @cached_property
    def _document(self) -> bytes:
        return json.dumps(openapi_of(self._operations), ensure_ascii=False).encode()

    @cached_property
    def _html(self) -> bytes:
        return page_of(json.loads(self._document)).encode()

    async def _json(self, request: Request) -> Response:
        data = await anyio.to_thread.run_sync(lambda: self._document)
        return Response(data, media_type=JSON, headers=_HEADERS)

    async def _page(self, request: Request) -> Response:
        data = await anyio.to_thread.run_sync(lambda: self._html)
        return Response(data, media_type="text/html", headers={**_HEADERS, **_CONFINED})


_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": f"max-age={MAX_AGE_S}"}
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_CONFINED = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
