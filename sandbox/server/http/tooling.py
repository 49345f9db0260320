"""Tools as operations over HTTP: the same arguments, checks and results as over MCP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from mcp.server.mcpserver.exceptions import ToolError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.audit import Outcome
from sandbox.errors import InvalidRequest
from sandbox.server.auth import GUARDED
from sandbox.server.desk import Desk, grant_of_request
from sandbox.server.http.calling import calling
from sandbox.server.http.given import given_by, names_in
from sandbox.server.http.operation import Operation, Schema
from sandbox.server.http.paging import PAGING, Page, next_page, page_of
from sandbox.server.http.place import MADE, STARTED, Http
from sandbox.server.schemas import UNLISTED
from sandbox.server.tool import StrictTool
from sandbox.sessions.notices import noticing
from sandbox.values import Frozen

RUNNING = "running"


class ToolEndpoint:
    """Answers requests by calling a tool."""

    def __init__(self, tool: StrictTool, http: Http, desk: Desk) -> None:
        self._tool = tool
        self._http = http
        self._desk = desk
        self._arguments = arguments_of(tool, http)
        self._paging = paging_of(http, self._arguments)

    async def __call__(self, request: Request) -> Response:
        """Call the tool.

        Raises:
            InvalidRequest: An argument is unknown, missing or wrong; nothing has run.
            SandboxError: As the tool says.
        """
        given = given_by(request, self._http, {**self._paging, **self._arguments})
        page = page_of({name: given.pop(name) for name in self._paging if name in given})
        given = {**self._http.defaults, **given}
        told = await call_tool(self._tool, self._desk, request, given)
        if "start_index" in self._arguments:
            page = page_of({"start_index": given.get("start_index", 0)})
        return self._answer(request, told, page)

    def _answer(self, request: Request, told: dict[str, Any], page: Page) -> Response:
        http = self._http
        headers: dict[str, str] = {}
        if self._paging:
            found: list[Any] = told[http.items]
            end = page.start_index + page.limit
            told = {**told, http.items: found[page.start_index : end]}
            headers = next_page(request, end) if len(found) > end else {}
        elif http.items and told.get("next"):  # the tool gives a page by itself
            headers = next_page(request, page.start_index + len(told.get(http.items, ())))
        goes_on = http.method == "POST" and told.get("status") == RUNNING
        status = STARTED if goes_on else http.status
        if http.location and status in (MADE, STARTED):
            known = {**request.path_params, **told}
            named = {name: quote(str(known[name]), safe="") for name in names_in(http.location)}
            headers["Location"] = GUARDED + http.location.format(**named)
        return JSONResponse(told, status, headers)


async def call_tool(
    tool: StrictTool, desk: Desk, request: Request, given: dict[str, Any]
) -> dict[str, Any]:
    """What a tool answers to a request, as its structured result without secrets.

    Raises:
        InvalidRequest: An argument is unknown, missing or wrong; nothing has run.
        SandboxError: As the tool says.
    """
    try:
        arguments = tool.validated(given)
    except ToolError as exc:
        raise InvalidRequest(str(exc)) from exc
    context = {tool.context_kwarg or "ctx": calling(request, given)}
    with noticing() as notices:
        result = await tool.fn(**arguments, **context)
    told: dict[str, Any] = result.structured_content or {}
    if notices and tool.result and "notes" in tool.result.model_fields:
        told["notes"] = [*told.get("notes", ()), *notices]
    outcome: Outcome = "failed" if result.is_error else "ok"
    request.state.ended = outcome, str(told.get("status", ""))
    session_id = str(given.get("session_id") or told.get("session_id") or "")
    redactor = desk.manager.redactor(grant_of_request(request).principal, session_id)
    return redactor.data(told)


def arguments_of(tool: StrictTool, http: Http) -> dict[str, Schema]:
    """What a tool takes over HTTP: without what its place says, and what is for MCP alone."""
    in_path = names_in(http.path)
    found: dict[str, Schema] = {}
    for name, schema in tool.arguments.items():
        if name in http.stands_for.values():
            continue
        if name in in_path or UNLISTED not in schema:
            default = {"default": http.defaults[name]} if name in http.defaults else {}
            found[name] = {**schema, **default}
    return found


def paging_of(http: Http, arguments: Mapping[str, Schema]) -> Mapping[str, Schema]:
    """What says which page of an answer is wanted, where the tool itself knows no pages."""
    return PAGING if http.items and "start_index" not in arguments else {}


def tool_operation(tool: StrictTool, desk: Desk) -> Operation | None:
    """A tool as an operation; None for one that is not there over HTTP."""
    http = tool.http
    if not isinstance(http, Http):
        return None
    arguments = arguments_of(tool, http)
    known = {*arguments, *http.stands_for}
    if odd := [name for name in names_in(http.path) if name not in known]:
        raise AssertionError(f"{tool.name} takes nothing that its path names {odd}")
    may_go_on = http.method == "POST" and "status" in (tool.result or Frozen).model_fields
    return Operation(
        name=tool.name,
        title=tool.title or tool.name,
        description=tool.description,
        http=http,
        tool=tool.name,
        scope="",
        answer=ToolEndpoint(tool, http, desk),
        arguments={**paging_of(http, arguments), **arguments},
        required=frozenset(tool.parameters.get("required", ())),
        result=tool.result,
        statuses={STARTED: "It goes on after this answer."} if may_go_on else {},
    )
