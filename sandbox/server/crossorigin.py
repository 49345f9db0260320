"""Pages of other origins that the settings name: what a browser lets them send and read.

Only what is named is answered, with its own name and never ``*``. There are no cookies here, so no
browser is told to send any (``Access-Control-Allow-Credentials``): a page needs the token.

Source: the CORS protocol of the Fetch standard, https://fetch.spec.whatwg.org/#http-cors-protocol.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Scope, Send

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
SENT = (
    "Accept, Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, If-Range, "
    "Last-Event-ID, Mcp-Method, Mcp-Name, MCP-Protocol-Version, Mcp-Session-Id, Range, "
    "Sandbox-Session, X-XSRFToken"
)
"""The headers of a request that a page may set."""
READ = (
    "Accept-Ranges, Content-Disposition, Content-Range, ETag, Idempotent-Replayed, Link, "
    "Location, Mcp-Session-Id, WWW-Authenticate"
)
"""The headers of an answer that a page may read besides the plain ones."""
MAX_AGE_S = 600


class CrossOrigin:
    """Answers for the pages of some origins: ``scheme://host``, ``…:port`` or ``…:*``."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        named = frozenset(origins)
        self._any_port = tuple(each.removesuffix("*") for each in named if each.endswith(":*"))
        self._exact = frozenset(each for each in named if not each.endswith("*"))

    def named(self, scope: Scope) -> str:
        """The origin of a request when it is one of those; else empty."""
        found = Headers(scope=scope).getlist("origin")
        if scope["type"] != "http" or len(found) != 1:
            return ""
        (origin,) = found
        of_any_port = (origin.removeprefix(each) for each in self._any_port)
        return origin if origin in self._exact or any(map(str.isdecimal, of_any_port)) else ""

    @staticmethod
    def preflight(scope: Scope) -> Response | None:
        """The answer to a browser that asks what a page may send; None for another request."""
        if scope["method"] != "OPTIONS":
            return None
        if "access-control-request-method" not in Headers(scope=scope):
            return None
        return Response(
            status_code=204,
            headers={
                "Access-Control-Allow-Methods": METHODS,
                "Access-Control-Allow-Headers": SENT,
                "Access-Control-Max-Age": str(MAX_AGE_S),
            },
        )

    @staticmethod
    def readable(origin: str, send: Send) -> Send:
        """A way out on which a page of that origin may read the answer."""

        async def allowing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                headers["Access-Control-Allow-Origin"] = origin
                headers["Access-Control-Expose-Headers"] = READ
                headers.add_vary_header("Origin")
                message = {**message, "headers": headers.raw}
            await send(message)

        return allowing
