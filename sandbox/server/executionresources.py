"""What an execution showed, as resources: all of it, at ``execution://ID``, or one output.

They are read as ``get_execution`` is called: by the same callers, with the same scope and the same
policy, and each reading is put on record as one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import anyio.to_thread
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from starlette.requests import Request

from sandbox.audit import recorded
from sandbox.errors import NotFound, SandboxError
from sandbox.kernels.models import ExecutionResult
from sandbox.outputs.redaction import Redactor
from sandbox.server.desk import Desk, caller_of, grant_of_request
from sandbox.server.pictures import header, picture_type

TOOL = "get_execution"
JSON = "application/json"
OTHER = "application/octet-stream"


class ExecutionResources:
    """The resources of a desk's executions."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add_to(self, server: MCPServer[Any]) -> None:
        """Serve them."""

        @server.resource(
            "execution://{execution_id}",
            title="An execution",
            description="An execution with its outputs in nbformat 4, as JSON.",
            mime_type=JSON,
        )
        async def execution(execution_id: str, ctx: Context[Any, Any]) -> str:  # pyright: ignore[reportUnusedFunction]  # the server calls it
            result = await self._read(ctx, execution_id, {})
            return await anyio.to_thread.run_sync(_as_json, result)

        @server.resource(
            "execution://{execution_id}/outputs/{index}",
            title="An output of an execution",
            description="A picture as its bytes; any other output as its mime bundle, as JSON.",
            mime_type=JSON,
        )
        async def output(  # pyright: ignore[reportUnusedFunction]  # the server calls it
            execution_id: str, index: str, ctx: Context[Any, Any]
        ) -> bytes | str:
            result = await self._read(ctx, execution_id, {"output": index})
            if not index.isdecimal() or int(index[:9]) >= len(result.outputs):
                raise _refusal(NotFound(f"It has {len(result.outputs)} outputs."))
            return output_data(result.outputs[int(index[:9])])

    async def _read(
        self, ctx: Context[Any, Any], execution_id: str, more: Mapping[str, Any]
    ) -> ExecutionResult:
        """An execution as its caller may see it.

        Raises:
            MCPError: The caller has none, or may not see it.
        """
        request = cast(Request | None, ctx.request_context.request)
        grant, manager = grant_of_request(request), self._desk.manager
        transport, token_id = ("stdio", "") if request is None else ("http", grant.token_id)
        asked = {"execution_id": execution_id, **more}
        try:
            with recorded(manager.audit, transport, TOOL, asked, grant.principal, token_id) as call:
                manager.audit.require()
                grant.require(TOOL)
                if not grant.offers(TOOL):
                    raise NotFound("There is no such resource for this token.")
                found = await manager.execution(caller_of(ctx), execution_id)
                result = found if isinstance(found, ExecutionResult) else found.snapshot()
                async with self._desk.session_of(ctx, result, TOOL):
                    pass
                call.ended("ok", result.status)
        except SandboxError as exc:
            raise _refusal(exc) from exc
        redactor = manager.redactor(grant.principal, result.session_id)
        return await anyio.to_thread.run_sync(without_secrets, result, redactor)


def typed(contents: Iterable[ReadResourceContents]) -> list[ReadResourceContents]:
    """What is read of resources, with the type of each picture for that of its template."""
    return [
        replace(each, mime_type=(header(each.content) or (OTHER,))[0])
        if isinstance(each.content, bytes)
        else each
        for each in contents
    ]


def _as_json(result: ExecutionResult) -> str:
    return json.dumps(result.model_dump(mode="json"), ensure_ascii=False)


def without_secrets(result: ExecutionResult, redactor: Redactor) -> ExecutionResult:
    """The same without the values of the session's secrets."""
    if not redactor:
        return result
    return ExecutionResult.model_validate(redactor.data(result.model_dump(mode="json")))


def output_data(output: dict[str, Any]) -> bytes | str:
    """A picture as its bytes; any other output as its mime bundle, as JSON."""
    if mime := picture_type(output):
        return base64.b64decode(output["data"][mime])
    return json.dumps(output, ensure_ascii=False)


def _refusal(error: SandboxError) -> MCPError:
    return MCPError(INVALID_PARAMS, str(error))
