"""A request over HTTP as the call of a tool: nobody can be asked, and nothing is told meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.session import ServerSession
from mcp_types import ClientCapabilities, InitializeRequestParams
from mcp_types.version import LATEST_MODERN_VERSION
from starlette.requests import Request

HTTP_METHOD = "http"
"""What stands for the method of MCP in the calls that are none."""


class _NoClient:
    """What is at the other end of a request: no client of MCP."""

    client_params: InitializeRequestParams | None = None
    client_capabilities: ClientCapabilities | None = None
    protocol_version = LATEST_MODERN_VERSION
    can_send_request = False

    async def report_progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Nobody listens; server-sent events tell whoever wants to know."""


def calling(request: Request, arguments: Mapping[str, Any]) -> Context[Any, Any]:
    """The context of a tool that a request calls."""
    return Context(
        request_context=ServerRequestContext(
            session=cast(ServerSession, _NoClient()),
            lifespan_context={},
            protocol_version=LATEST_MODERN_VERSION,
            method=HTTP_METHOD,
            params={"arguments": dict(arguments)},
            request=request,
        )
    )


def is_over_http(ctx: Context[Any, Any]) -> bool:
    """Whether a call is a request over HTTP."""
    return ctx.request_context.method == HTTP_METHOD
