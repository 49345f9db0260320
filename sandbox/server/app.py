"""The served application: MCP at ``/mcp/v1``, REST below it, health beside it."""

from __future__ import annotations

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from sandbox.server.auth import GUARDED, Gate, TokenVerifier
from sandbox.server.desk import Desk
from sandbox.server.health import Check, Health
from sandbox.server.problems import problem
from sandbox.server.protocol import mcp_server
from sandbox.server.rest import Rest

MAX_MCP_BODY = 4 * 1024 * 1024


def make_app(
    desk: Desk, *, verifier: TokenVerifier, security: TransportSecuritySettings, check: Check
) -> ASGIApp:
    """The application.

    Args:
        desk: The sessions.
        verifier: Knows the tokens.
        security: The hosts and origins that are served.
        check: Returns when the engine answers; for readiness.
    """
    server = mcp_server(desk)
    mcp_app = server.streamable_http_app(
        streamable_http_path=GUARDED,
        max_request_body_size=MAX_MCP_BODY,
        # The gate has looked at Host and Origin, for REST too.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    app = Starlette(
        routes=[*mcp_app.routes, *Rest(desk).routes(), *Health(check).routes()],
        lifespan=lambda _: server.session_manager.run(),
        exception_handlers={404: _absent, 405: _wrong_method},
    )
    return Gate(app, verifier, security)


async def _absent(request: Request, exc: Exception) -> Response:
    return problem(404, "There is nothing here.", f"MCP is served at {GUARDED}.")


async def _wrong_method(request: Request, exc: Exception) -> Response:
    headers: dict[str, str] | None = getattr(exc, "headers", None)
    return problem(405, f"{request.method} means nothing here.", headers=headers)
