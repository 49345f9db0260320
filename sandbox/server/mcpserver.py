"""The MCP server: what it says of itself, and its tools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    GetPromptResult,
    InputRequiredResult,
    TextContent,
)
from pydantic import AnyUrl
from starlette.requests import Request

from sandbox import __version__
from sandbox.audit import Call, recorded
from sandbox.bulkheads.shares import Owner
from sandbox.errors import InvalidRequest, SandboxError
from sandbox.outputs.redaction import Redactor
from sandbox.server.desk import Desk, caller_of, grant_of, grant_of_request
from sandbox.server.elicitation import Parking, answers_questions, objection_of
from sandbox.server.executionresources import TOOL, ExecutionResources, typed
from sandbox.server.hosts import listed_for, without_structure
from sandbox.server.listing import INSTRUCTIONS, instructions, listed
from sandbox.server.notebookresources import CELL_TOOL, NOTEBOOK_TOOL, NotebookResources
from sandbox.server.scopes import TOOL_SCOPES
from sandbox.server.tool import ERROR_META_KEY, failure
from sandbox.server.tools.catalogue import all_tools
from sandbox.server.wording import printable, unknown
from sandbox.sessions.notices import noticing
from sandbox.toolsets import ALL, TOOLS, tools_of

ALWAYS_SERVED = frozenset({"list_sessions", "close_session"})
"""The tools that work when nothing can be put on record: they only take away."""


class RecordingServer(MCPServer[Any]):
    """An MCP server that puts every call of a tool on record, those that are refused among them."""

    def __init__(self, desk: Desk, tools: list[Tool], introduction: str, **settings: Any) -> None:
        names = frozenset(tool.name for tool in tools)
        super().__init__(tools=tools, instructions=instructions(names, introduction), **settings)
        self._introduction = introduction
        self.middleware.append(self._greet)
        self._names = names
        self._noted = frozenset(tool.name for tool in tools if _has_notes(tool))
        self._manager = desk.manager
        self._parking = Parking(desk.manager.start)
        self._audit = desk.manager.audit
        self._shaping = desk.shaping
        self.middleware.append(self._list_for_the_caller)

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool, or go on with a call whose client was asked something.

        Raises:
            MCPError: There is no such tool.
            ToolError: The tool's arguments are wrong.
        """
        if (
            context is None
            or name not in self._names
            or not grant_of(context).offers(name)
            or not answers_questions(context)
        ):
            return await self._call(name, arguments, context)
        try:
            caller = caller_of(context)
            if context.request_state is not None:
                return await self._parking.resume(
                    caller.principal, context.request_state, context.input_responses
                )
            if not self._manager.ownership.may_ask(caller):
                return await self._call(name, arguments, context)
            return await self._parking.begin(
                Owner(caller.principal, _session_named(arguments)),
                objection_of(context),
                lambda: self._call(name, arguments, context),
            )
        except SandboxError as exc:
            return failure(exc)

    async def _call(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool, and record the call at its end."""
        request = cast(Request | None, context.request_context.request) if context else None
        grant = grant_of_request(request)
        transport, token_id = ("stdio", "") if request is None else ("http", grant.token_id)
        with (
            recorded(self._audit, transport, name, arguments, grant.principal, token_id) as call,
            noticing() as notices,
        ):
            call.session_id = _session_named(arguments)
            try:
                if name not in ALWAYS_SERVED:
                    self._audit.require()
                if name not in self._names or not grant.offers(name):
                    call.failed(InvalidRequest.code)
                    raise MCPError(INVALID_PARAMS, f"Unknown tool: {printable(name)}")
                result = await super().call_tool(name, arguments, context)
            except SandboxError as exc:
                result = failure(exc)
            except UnexpectedToolError:
                raise
            except ToolError:  # its arguments are wrong
                call.failed(InvalidRequest.code)
                raise
            _note(call, result)
            self._tell(notices, name, result)
            if context and not self._shaping.host(context.session).structured:
                result = without_structure(result)
            redactor = self._manager.redactor(grant.principal, call.session_id)
            return _without_secrets(result, redactor)

    def _tell(
        self, notices: list[str], tool: str, result: CallToolResult | InputRequiredResult
    ) -> None:
        """Tell a caller, in the text and in the structured result, what it must know besides."""
        if not isinstance(result, CallToolResult):
            return
        result.content.extend(TextContent(type="text", text=f"[{each}]") for each in notices)
        if notices and result.structured_content is not None and tool in self._noted:
            noted: list[str] = result.structured_content.setdefault("notes", [])
            noted.extend(notices)

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[Any, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """Read a resource; a picture has a type of its own."""
        found = await super().read_resource(uri, context)
        return found if isinstance(found, InputRequiredResult) else typed(found)

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        context: Context[Any, Any] | None = None,
    ) -> GetPromptResult | InputRequiredResult:
        """Render a prompt.

        Raises:
            MCPError: There is no such prompt, or its arguments are others.
        """
        given = arguments or {}
        prompts = {prompt.name: prompt for prompt in await self.list_prompts()}
        if name not in prompts:
            raise MCPError(INVALID_PARAMS, f"Unknown prompt: {printable(name)}")
        known = prompts[name].arguments or []
        if absent := [each.name for each in known if each.required and each.name not in given]:
            raise MCPError(INVALID_PARAMS, f"{name} needs: {', '.join(absent)}")
        if strange := given.keys() - {each.name for each in known}:
            raise MCPError(INVALID_PARAMS, unknown(min(strange), [each.name for each in known]))
        return await super().get_prompt(name, arguments, context)

    async def _list_for_the_caller(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Leave out of lists what the caller's token does not offer or has no scope for, and tell
        its host of tools what that understands."""
        result = await call_next(ctx)
        if ctx.method not in ("tools/list", "prompts/list") or not isinstance(result, dict):
            return result
        grant, host = grant_of_request(ctx.request), self._shaping.host(ctx.session)
        if ctx.method == "prompts/list":  # there is but one, which shows cells
            return result if grant.may_call(CELL_TOOL) else {**result, "prompts": []}
        tools = cast(list[dict[str, Any]], result["tools"])
        offered = frozenset(filter(grant.may_call, (tool["name"] for tool in tools)))
        told = [listed_for(host, tool) for tool in listed(tools, offered)]
        return {**result, "tools": told}

    async def _greet(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Advertise what there is for the caller: the SDK names prompts and resources without any,
        and the instructions say nothing of tools that are not offered."""
        result = await call_next(ctx)
        if ctx.method not in ("initialize", "server/discover") or not isinstance(result, dict):
            return result
        grant = grant_of_request(ctx.request)
        there = {
            "prompts": grant.may_call(CELL_TOOL) and await self.list_prompts(),
            "resources": await self.list_resources() or await self.list_resource_templates(),
        }
        told = cast(dict[str, Any], result["capabilities"])
        kept = {name: value for name, value in told.items() if there.get(name, True)}
        offered = frozenset(filter(grant.may_call, self._names))
        said = instructions(offered, self._introduction)
        return {**result, "capabilities": kept, "instructions": said}


def _has_notes(tool: Tool) -> bool:
    """Whether a tool's structured result has room for notes."""
    return "notes" in (tool.fn_metadata.output_schema or {}).get("properties", {})


def _session_named(arguments: dict[str, Any]) -> str:
    named = arguments.get("session_id")
    return named if isinstance(named, str) else ""


def _without_secrets(
    result: CallToolResult | InputRequiredResult, redactor: Redactor
) -> CallToolResult | InputRequiredResult:
    """An answer without the values of the session's secrets: also in names, errors and diffs."""
    if not redactor or not isinstance(result, CallToolResult):
        return result
    told = result.model_dump(mode="json", by_alias=True)
    clean = redactor.data(told)
    return result if clean is told else CallToolResult.model_validate(clean)


def _note(call: Call, result: CallToolResult | InputRequiredResult) -> None:
    """Note how a call ended from what it answers."""
    if not isinstance(result, CallToolResult):
        return
    error: dict[str, str] = (result.meta or {}).get(ERROR_META_KEY) or {}
    told: dict[str, Any] = result.structured_content or {}
    if error:
        call.failed(error["code"], error.get("reason", ""))
    else:
        call.ended("failed" if result.is_error else "ok", str(told.get("status", "")))


def mcp_server(
    desk: Desk,
    toolsets: Iterable[str] = (ALL,),
    introduction: str = INSTRUCTIONS,
    more: Sequence[Tool] = (),
) -> MCPServer[Any]:
    """The MCP server over a desk's sessions, for any transport.

    Args:
        toolsets: The toolsets and tools that are there, for whatever token.
        introduction: What it says of itself, sentence by sentence, as ``listing`` shows it.
        more: Tools that are there besides, which the controller's own server does not have.
    """
    tools = all_tools(desk)
    if odd := [each.name for each in tools if each.name not in TOOLS & TOOL_SCOPES.keys()]:
        raise AssertionError(f"tools without a scope or a toolset: {odd}")
    offered = tools_of(toolsets)
    server = RecordingServer(
        desk,
        name="sandbox",
        title="Sandbox",
        description="Runs code in a container of your own.",
        introduction=introduction,
        version=__version__,
        tools=[*(each for each in tools if each.name in offered), *more],
        log_level="WARNING",
        subscriptions=False,
    )
    if TOOL in offered:
        ExecutionResources(desk).add_to(server)
    if offered.issuperset((NOTEBOOK_TOOL, CELL_TOOL)):
        NotebookResources(desk).add_to(server)
    return server
