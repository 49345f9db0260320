"""The gate before everything under ``/mcp/v1``: Host and Origin, then the bearer token."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.config import Settings, is_loopback
from sandbox.errors import ConfigError
from sandbox.server.desk import LOCAL
from sandbox.server.problems import problem

GUARDED = "/mcp/v1"
TOKEN_FILE = "token"  # noqa: S105  # the name of its file
TOKEN_BYTES = 32
MAX_HEADER = 4096


class TokenVerifier(Protocol):
    """Knows whose token it is."""

    def principal(self, token: str) -> str | None:
        """The principal that a token stands for; None when it stands for nobody."""
        ...


class LocalToken:
    """One token, which stands for the person who started the server.

    Args:
        token: The token.
    """

    def __init__(self, token: str) -> None:
        self._digest = _digest(token)

    def principal(self, token: str) -> str | None:
        """``local`` for the token, compared in constant time; None for any other."""
        return LOCAL if hmac.compare_digest(_digest(token), self._digest) else None


class Gate:
    """Lets through what is addressed to this server and carries a valid token.

    The Host check stops a web page that has rebound its name to our address; the Origin check one
    that calls us openly. Paths outside ``/mcp/v1`` (health) pass, and must tell nothing.

    Args:
        app: What stands behind it.
        verifier: Knows the tokens.
        security: The hosts and origins that are served.
    """

    def __init__(
        self, app: ASGIApp, verifier: TokenVerifier, security: TransportSecuritySettings
    ) -> None:
        self._app = app
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
            return problem(
                wrong.status_code,
                f"The {header} header is not one this server serves.",
                "Add it to the setting "
                + ("allowed_origins." if header == "Origin" else "allowed_hosts."),
            )
        principal = self._principal(request.headers.get("authorization", ""))
        if principal is None:
            return problem(
                401,
                "A valid bearer token is needed.",
                "Send `Authorization: Bearer TOKEN`; `sandbox token` shows the token.",
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


def server_token(settings: Settings, state_dir: Path) -> str:
    """The token of the settings, else the one in the state folder, which is made if need be.

    Raises:
        ConfigError: Its file cannot be used, or others may read it.
    """
    named = settings.token.get_secret_value()
    if named:
        return named
    path = state_dir / TOKEN_FILE
    return read_token(path) or _make_token(path)


def read_token(path: Path) -> str | None:
    """The token in a file; None when there is no such file.

    Raises:
        ConfigError: It cannot be read, others may read it, or it holds no token.
    """
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise ConfigError(f"The token in {path} cannot be read: {exc}.") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"Others may read the token in {path}.",
            remedy="Remove the file, so that a new token is made at the next start.",
        )
    if len(token) < 16:
        raise ConfigError(
            f"{path} holds no token.",
            remedy="Remove the file, so that a new token is made at the next start.",
        )
    return token


def _make_token(path: Path) -> str:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(token + "\n")
        fresh.replace(path)
    except OSError as exc:
        raise ConfigError(f"The token cannot be kept in {path}: {exc.strerror}.") from exc
    return token


def _is_guarded(path: str) -> bool:
    # The prefix alone: a route's pattern also matches its path with a line feed behind it.
    return path.startswith(GUARDED)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
