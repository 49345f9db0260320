"""The gate before all under ``/mcp`` and ``/jupyter``: Host and Origin, then the bearer token.

WebSockets pass the same gate, wherever they lead, before they are accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.config import Settings, is_loopback
from sandbox.errorgroups import one_error
from sandbox.errors import SandboxError
from sandbox.server.credentials import JUPYTER, take_token
from sandbox.server.crossorigin import CrossOrigin
from sandbox.server.grants import Grant, TokenVerifier
from sandbox.server.oauth import ProtectedResource
from sandbox.server.problems import problem
from sandbox.server.scopes import scopes_of
from sandbox.server.sharing import reaches
from sandbox.toolsets import TOOLS

GUARDED = "/mcp/v1"
OPENAPI_PATH = f"{GUARDED}/openapi.json"
DOCS_PATH = f"{GUARDED}/docs"
OPEN = frozenset({OPENAPI_PATH, DOCS_PATH})
"""What tells nothing of this controller, and needs no token."""
PREFIXES = ("/mcp", JUPYTER)
"""What begins with these is guarded."""
ALIASES = frozenset({"/mcp", "/mcp/", f"{GUARDED}/"})
"""Other spellings of where MCP is served."""
MAX_HEADERS = 128
TOKEN_GONE = 4401
"""The code with which a WebSocket is closed when its token counts no more."""
RECHECK_S = 2.0
"""How often the token of a request that lasts is looked at again."""

_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")

logger = logging.getLogger(__name__)


class Gate:
    """Lets through what is addressed to this server and carries a valid token.

    The Host check stops a web page that has rebound its name to our address; the Origin check one
    that calls us openly. Paths outside ``/mcp`` (health) pass, and must tell nothing.
    ``denied`` is told of each request that is turned away: the check it failed, and where it came
    from. ``tools`` are those that are served over MCP.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: TokenVerifier,
        security: TransportSecuritySettings,
        denied: Callable[[str, str], None],
        resource: ProtectedResource | None = None,
        cross_origin: CrossOrigin | None = None,
        tools: frozenset[str] = TOOLS,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._security = TransportSecurityMiddleware(security)
        self._denied = denied
        self._resource = resource
        self._cross_origin = cross_origin or CrossOrigin()
        self._tools = tools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or the lifespan."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif len(scope["headers"]) > MAX_HEADERS:
            # A look-up is linear in them, and some look each of them up.
            answer = problem(431, f"A request has at most {MAX_HEADERS} headers.")
            await answer(scope, receive, send)
        # The prefix alone: a route's pattern also matches its path with a line feed behind it.
        elif scope["type"] == "websocket" or scope["path"].startswith(PREFIXES):
            if scope["path"] in ALIASES:  # what is further in knows one name
                scope = {**scope, "path": GUARDED, "raw_path": GUARDED.encode()}
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HTTPConnection(scope)
        token = ""
        answer = await self._misdirected(request)
        if answer is None and (origin := self._cross_origin.named(scope)):
            send = self._cross_origin.readable(origin, send)
            answer = self._cross_origin.preflight(scope)  # browsers ask without the token
        if answer is None and scope["path"] in OPEN and scope["type"] == "http":
            await self._app(scope, receive, send)
            return
        if answer is None:
            token = take_token(scope)
            grant: Grant | None = None
            try:
                grant = await self._verifier.grant(token) if token else None
            except SandboxError as exc:  # a token that cannot be checked is not accepted
                logger.warning("a token cannot be checked: %s", exc)
                answer = problem(503, "Tokens cannot be checked at the moment.", "Try again soon.")
            if grant is not None and (answer := self._insufficient(grant, request)) is None:
                await self._serve_as(grant, token, scope, receive, send)
                return
            self._denied("scope" if grant else "token", _client(scope))
        await (answer or self._unauthorized(was_given=bool(token)))(scope, receive, send)

    async def _misdirected(self, request: HTTPConnection) -> Response | None:
        wrong = await self._security.validate_request(cast(Request, request))  # its headers
        if wrong is None:
            return None
        header = "Origin" if wrong.status_code == 403 else "Host"
        self._denied(header.lower(), _client(request.scope))
        return problem(
            wrong.status_code,
            f"The {header} header is not one this server serves.",
            "Add it to the setting "
            + ("allowed_origins." if header == "Origin" else "allowed_hosts."),
        )

    def _insufficient(self, grant: Grant, request: HTTPConnection) -> Response | None:
        """Refuse what a token for one notebook is not for, and send a client that can get a token
        of more scopes to its authorization server.

        The header is compared with the body further in; where it is missing, the tool refuses.
        """
        if grant.notebook is not None and not reaches(grant.notebook, request.scope):
            return problem(
                403,
                "The token is for one shared notebook and nothing else.",
                "Ask whoever shared it for a token of your own.",
            )
        name = request.headers.get("mcp-name", "")
        if not grant.is_foreign or self._resource is None:
            return None
        if name not in self._tools or not grant.offers(name):
            return None
        if request.headers.get("mcp-method") != "tools/call" or grant.allows(name):
            return None
        wanted = " ".join(scopes_of(name))
        challenge = self._resource.challenge("insufficient_scope", wanted)
        return problem(
            403,
            f"The token does not have the scope that {name} needs.",
            headers={"WWW-Authenticate": challenge},
        )

    def _unauthorized(self, *, was_given: bool) -> Response:
        challenge = 'Bearer realm="sandbox"'
        if self._resource is not None:
            challenge = self._resource.challenge("invalid_token" if was_given else "")
        return problem(
            401,
            "A valid bearer token is needed.",
            "Send `Authorization: Bearer TOKEN`; `sandbox token show` prints the local one, "
            "`sandbox token create` makes others.",
            headers={"WWW-Authenticate": challenge},
        )

    async def _serve_as(
        self, grant: Grant, token: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve a request as long as its token counts: one that lasts is cut off with it."""
        scope["sandbox.grant"] = grant
        # The SDK binds the sessions of handshaking clients to this user.
        user = AccessToken(
            token="", client_id=grant.token_id, subject=grant.principal, scopes=sorted(grant.scopes)
        )
        scope["user"] = AuthenticatedUser(user)
        answer = _Answer(send, lambda: self._unauthorized(was_given=True))
        async with one_error() as tasks:
            tasks.start_soon(self._watch, token, tasks.cancel_scope)
            await self._app(scope, receive, answer.send)
            answer.is_complete = True
            tasks.cancel_scope.cancel()
        if not answer.is_complete:
            await answer.break_off(scope, receive)

    async def _watch(self, token: str, serving: anyio.CancelScope) -> None:
        counts = True
        while counts:
            await anyio.sleep(RECHECK_S)
            try:
                counts = await self._verifier.grant(token) is not None
            except SandboxError:
                counts = False
        serving.cancel()


class _Answer:
    """A response on its way out, which may have to end early, or before it has begun: then another
    is sent instead."""

    def __init__(self, send: Send, instead: Callable[[], Response]) -> None:
        self._send = send
        self._instead = instead
        self._start: Message | None = None
        self.is_complete = False

    async def send(self, message: Message) -> None:
        """Pass a part of it on."""
        if message["type"] in _STARTS:
            self._start = message
        self.is_complete = self.is_complete or message["type"] == "websocket.close"
        await self._send(message)

    async def break_off(self, scope: Scope, receive: Receive) -> None:
        """End it now, so that whoever reads it sees that it has ended."""
        if self._start is None:
            await self._instead()(scope, receive, self._send)
        elif self._start["type"] == "websocket.accept":
            reason = "The token counts no more."
            await self._send({"type": "websocket.close", "code": TOKEN_GONE, "reason": reason})
        elif self._start["type"] == "http.response.start" and not any(
            name.lower() == b"content-length" for name, _ in self._start["headers"]
        ):
            await self._send({"type": "http.response.body", "body": b""})
        # Else bytes that were announced are missing, and the server closes the connection.


def security_settings(settings: Settings) -> TransportSecuritySettings:
    """The hosts and origins to serve: those of the settings, else the names of loopback."""
    hosts = settings.allowed_hosts
    if not hosts:
        names = ["127.0.0.1", "localhost", "[::1]"]
        if is_loopback(settings.host) and settings.host not in (*names, "::1"):
            names.append(settings.host)
        hosts = tuple(form for name in names for form in (name, f"{name}:*"))
    origins = settings.allowed_origins or tuple(
        f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")
    )
    return TransportSecuritySettings(allowed_hosts=list(hosts), allowed_origins=list(origins))


def _client(scope: Scope) -> str:
    client: tuple[str, int] | None = scope.get("client")
    return client[0] if client else ""
