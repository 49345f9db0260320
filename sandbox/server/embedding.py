"""MCP inside another server, which has authenticated its callers: what stands around it there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager

from mcp.server.mcpserver.tools import Tool
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from sandbox.server.auth import GUARDED
from sandbox.server.desk import Desk
from sandbox.server.handshakes import Handshakes
from sandbox.server.intake import MAX_MCP_BODY, Intake
from sandbox.server.mcpserver import mcp_server
from sandbox.server.replays import RETRY_MS, Replays

MAX_REQUESTS = 256


@asynccontextmanager
async def embedded(
    desk: Desk, toolsets: Iterable[str], introduction: str, more: Sequence[Tool] = ()
) -> AsyncGenerator[ASGIApp]:
    """An application that answers at :data:`GUARDED`, for as long as the block lasts.

    Every scope that it is called with has the grant of its caller as ``sandbox.grant``, and the
    other server has looked at Host and Origin.

    Args:
        more: Tools that there are in the other server only.
    """
    server = mcp_server(desk, toolsets, introduction, more)
    replays = Replays()
    app = server.streamable_http_app(
        streamable_http_path=GUARDED,
        event_store=replays,
        retry_interval=RETRY_MS,
        max_request_body_size=MAX_MCP_BODY,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    async with server.session_manager.run():
        try:
            yield Intake(Handshakes(app, desk.manager.conversations, replays), MAX_REQUESTS)
        finally:
            desk.stop()
