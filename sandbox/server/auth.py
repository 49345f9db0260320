"""The gate before everything under ``/mcp/v1``: Host and Origin, then the bearer token."""

from __future__ import annotations

from collections.abc import Callable

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.config import Settings, is_loopback
from sandbox.server.problems import problem
from sandbox.server.tokens import TokenVerifier

GUARDED = "/mcp/v1"
MAX_HEADER = 4096


class Gate:
    """Lets through what is addressed to this server and carries a valid token.

    The Host check stops a web page that has rebound its name to our address; the Origin check one
    that calls us openly. Paths outside ``/mcp/v1`` (health) pass, and must tell nothing.

    Args:
        app: What stands behind it.
        verifier: Knows the tokens.
        security: The hosts and origins that are served.
        denied: Told of each request that is turned away: the check it failed, and where it came
            from.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: TokenVerifier,
        security: TransportSecuritySettings,
        denied: Callable[[str, str], None],
    ) -> None:
        self._app = app
        self._denied = denied
        self._verifier = verifier
        self._security = TransportSecurityMiddleware(security)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or the lifespan."""
        if scope["type"] == "http" and _is_guarded(scope["path"]):
            refused = await self._refusal(scope)
            if refused is not None:
                await refused(scope, receive, send)
                return
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response | None:
        request = Request(scope)
        wrong = await self._security.validate_request(request)
        if wrong is not None:
            header = "Origin" if wrong.status_code == 403 else "Host"
            self._denied(header.lower(), _client(scope))
            return problem(
                wrong.status_code,
                f"The {header} header is not one this server serves.",
                "Add it to the setting "
                + ("allowed_origins." if header == "Origin" else "allowed_hosts."),
            )
        principal = self._principal(request.headers.get("authorization", ""))
        if principal is None:
            self._denied("token", _client(scope))
            return problem(
                401,
                "A valid bearer token is needed.",
                "Send `Authorization: Bearer TOKEN`; `sandbox token show` prints it.",
                headers={"WWW-Authenticate": 'Bearer realm="sandbox"'},
            )
        scope["sandbox.principal"] = principal
        # The SDK binds the sessions of handshaking clients to this user.
        scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=principal, scopes=[]))
        return None

    def _principal(self, header: str) -> str | None:
        scheme, _, token = header[:MAX_HEADER].partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        return self._verifier.principal(token.strip())


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


def _is_guarded(path: str) -> bool:
    # The prefix alone: a route's pattern also matches its path with a line feed behind it.
    return path.startswith(GUARDED)
