"""What an execution showed, as resources: all of it, at ``execution://ID``, or one output.

They are read as ``get_execution`` is called: by the same callers, with the same scope and the same
policy, and each reading is put on record as one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import anyio.to_thread
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context, MCPServer

from sandbox.errors import InvalidRequest, NotFound, SandboxError
from sandbox.kernels.models import ExecutionResult
from sandbox.outputs.redaction import Redactor
from sandbox.server.desk import Desk, caller_of
from sandbox.server.pictures import header, picture_type
from sandbox.server.readings import reading, refusal

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
            try:
                at = output_index(index, len(result.outputs))
                return await anyio.to_thread.run_sync(output_data, result.outputs[at])
            except SandboxError as exc:
                raise refusal(exc) from exc

    async def _read(
        self, ctx: Context[Any, Any], execution_id: str, more: Mapping[str, Any]
    ) -> ExecutionResult:
        """An execution as its caller may see it.

        Raises:
            MCPError: The caller has none, or may not see it.
        """
        manager, caller = self._desk.manager, caller_of(ctx)
        async with reading(self._desk, ctx, TOOL, {"execution_id": execution_id, **more}) as call:
            found = await manager.execution(caller, execution_id)
            result = found if isinstance(found, ExecutionResult) else found.snapshot()
            async with self._desk.session_of(ctx, result, TOOL):
                pass
            call.ended("ok", result.status)
        redactor = manager.redactor(caller.principal, result.session_id)
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


def output_index(text: str, count: int) -> int:
    """Which of so many outputs a text names, counted from 0.

    Raises:
        NotFound: It names none.
    """
    is_number = text.isascii() and text.isdecimal() and len(text) < 10
    if not is_number or int(text) >= count:
        raise NotFound(f"It has {count} outputs.", remedy="They are counted from 0.")
    return int(text)


def output_data(output: dict[str, Any]) -> bytes | str:
    """A picture as its bytes; any other output as its mime bundle, as JSON.

    Raises:
        InvalidRequest: The picture is none.
    """
    if mime := picture_type(output):
        try:
            return base64.b64decode(output["data"][mime])
        except ValueError as exc:
            raise InvalidRequest("The bytes of the picture are not base64.") from exc
    return json.dumps(output, ensure_ascii=False)
