"""The served application: MCP at ``/mcp/v1``, the HTTP API below it, health beside it, and sessions
as Jupyter Servers below ``/jupyter``."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from sandbox.server.auth import GUARDED, Gate, TokenVerifier
from sandbox.server.channels.routes import channel_routes
from sandbox.server.crossorigin import CrossOrigin
from sandbox.server.desk import Desk
from sandbox.server.endpoints import Astray
from sandbox.server.handshakes import Handshakes
from sandbox.server.health import Check, Health
from sandbox.server.http.documents import Documents
from sandbox.server.http.idempotency import Replies
from sandbox.server.http.routes import places_of
from sandbox.server.http.table import all_operations
from sandbox.server.intake import MAX_MCP_BODY, Intake
from sandbox.server.jupyter.front import jupyter_routes, jupyter_websockets
from sandbox.server.mcpserver import mcp_server
from sandbox.server.oauth import ProtectedResource
from sandbox.server.replays import RETRY_MS, Replays
from sandbox.server.websockets import WebSocketRoute, WebSockets
from sandbox.toolsets import ALL, tools_of


def make_app(
    desk: Desk,
    *,
    verifier: TokenVerifier,
    security: TransportSecuritySettings,
    check: Check,
    resource: ProtectedResource | None = None,
    max_requests: int = 256,
    websockets: Sequence[WebSocketRoute] = (),
    origins: Sequence[str] = (),
    toolsets: Sequence[str] = (ALL,),
) -> ASGIApp:
    """The application.

    Args:
        toolsets: What is served over MCP, as the setting ``tools`` names it.
        origins: Of other pages that may call, as the setting ``allowed_origins`` names them.
    """
    server = mcp_server(desk, toolsets)
    replays = Replays()
    mcp_app = server.streamable_http_app(
        streamable_http_path=GUARDED,
        event_store=replays,
        retry_interval=RETRY_MS,
        max_request_body_size=MAX_MCP_BODY,
        # The gate has looked at Host and Origin, for REST too.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    operations, audit = all_operations(desk), desk.manager.audit
    astray = Astray(audit)
    app = FastAPI(
        routes=[
            *mcp_app.routes,
            *Documents(operations).routes(),
            *places_of(operations, audit, Replies()),
            *jupyter_routes(desk),
            *Health(check).routes(),
            *(resource.routes() if resource else ()),
        ],
        # Its own pages load scripts from elsewhere; Documents has ours.
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lambda _: server.session_manager.run(),
        exception_handlers={404: astray.absent, 405: astray.wrong_method},
    )
    handshakes = Handshakes(app, desk.manager.conversations, replays)
    sockets = [*channel_routes(desk.manager), *jupyter_websockets(desk), *websockets]
    served = Intake(WebSockets(handshakes, sockets, desk), max_requests)
    denied, cross_origin = desk.manager.audit.deny, CrossOrigin(origins)
    return Gate(served, verifier, security, denied, resource, cross_origin, tools_of(toolsets))
