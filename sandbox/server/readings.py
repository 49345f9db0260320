"""Reading a resource or a prompt: with the scope and the record of a tool that answers the same."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from starlette.requests import Request

from sandbox.audit import Call, recorded
from sandbox.errors import NotFound, SandboxError
from sandbox.server.desk import Desk, grant_of_request


@asynccontextmanager
async def reading(
    desk: Desk, ctx: Context[Any, Any], tool: str, asked: Mapping[str, Any]
) -> AsyncGenerator[Call]:
    """Let a caller read what a tool would answer, and put that on record at its end.

    Raises:
        MCPError: The caller may not, or what the block does failed.
    """
    request = cast(Request | None, ctx.request_context.request)
    grant, audit = grant_of_request(request), desk.manager.audit
    transport, token_id = ("stdio", "") if request is None else ("http", grant.token_id)
    try:
        with recorded(audit, transport, tool, dict(asked), grant.principal, token_id) as call:
            audit.require()
            grant.require(tool)
            if not grant.offers(tool):
                raise NotFound("There is no such resource for this token.")
            yield call
    except SandboxError as exc:
        raise refusal(exc) from exc


def refusal(error: SandboxError) -> MCPError:
    """An error of ours, as the protocol tells it."""
    return MCPError(INVALID_PARAMS, str(error))
