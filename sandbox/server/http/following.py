"""What runs, followed as it comes: events of executions and of commands.

Each event has an id from which a reader that lost its connection goes on (``Last-Event-ID``).
Readers are independent of each other. What the log forgot before a slow one came to it, that one is
told as a number. The last event is ``end``, with what a GET would answer.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.commands.command import Command
from sandbox.commands.models import CommandResult
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.outputs.collector import OUTPUTS
from sandbox.server.desk import caller_of_request
from sandbox.server.http.eventstream import LAST, Event, EventStream, last_id
from sandbox.server.http.operation import EVENTS, EndpointGroup, NoArguments, endpoint
from sandbox.server.http.place import Http
from sandbox.server.http.tooling import call_tool
from sandbox.server.results import CellSummary

CANCEL_WAIT_S = 5
"""For a cell to heed its interrupt before it is answered how it stands."""

_EXECUTION = "/sessions/{session_id}/executions/{execution_id}"
_COMMAND = "/sessions/{session_id}/commands/{command_id}"
_RESUMING = {"Last-Event-ID": "The id of the last event that the reader got."}
_STOP = {204: "The reader has had the last event."}


class FollowEndpoints(EndpointGroup):
    """Executions and commands while they run."""

    @endpoint(
        "Follow an execution",
        Http("GET", f"{_EXECUTION}/events"),
        tool="get_execution",
        media=(EVENTS,),
        headers=_RESUMING,
        statuses=_STOP,
    )
    async def follow_execution(self, request: Request, _: NoArguments) -> Response:
        """Answer what a cell shows as it comes, as server-sent events: `output` with a message of
        its kernel, `missed` with how many messages were forgotten, and `end` with how it ended."""
        found = await self._execution(request, "get_execution")
        position = last_id(request)
        if position is None:
            return Response(status_code=204)
        events = self._events_of_cell(request, found, position)
        return EventStream(events, self._desk.waiting)

    @endpoint(
        "Interrupt an execution",
        Http("DELETE", _EXECUTION),
        tool="interrupt_kernel",
        result=CellSummary,
    )
    async def interrupt_execution(self, request: Request, _: NoArguments) -> Response:
        """Interrupt a cell that runs, take one out of the queue that waits, and answer how it
        stands then."""
        found = await self._execution(request, "interrupt_kernel", "get_execution")
        if isinstance(found, Execution) and not found.is_over:
            session = await self._session(request)
            async with session.use():
                await found.cancel()
        return JSONResponse(await self._told(request, "get_execution", wait=CANCEL_WAIT_S))

    @endpoint(
        "Follow a command",
        Http("GET", f"{_COMMAND}/events"),
        tool="get_command",
        media=(EVENTS,),
        headers=_RESUMING,
        statuses=_STOP,
    )
    async def follow_command(self, request: Request, _: NoArguments) -> Response:
        """Answer what a command writes as it comes, as server-sent events: `output` with the name
        of the stream and its text, `missed` with how many bytes were forgotten, and `end` with how
        it ended."""
        found = await self._manager.command(
            caller_of_request(request), request.path_params["command_id"]
        )
        session_id = (
            found.session_id if isinstance(found, CommandResult) else found.record.session_id
        )
        self._check(request, session_id, "get_command")
        position = last_id(request)
        if position is None:
            return Response(status_code=204)
        events = self._events_of_command(request, found, position)
        return EventStream(events, self._desk.waiting)

    async def _execution(self, request: Request, *tools: str) -> Execution | ExecutionResult:
        caller = caller_of_request(request)
        found = await self._manager.execution(caller, request.path_params["execution_id"])
        known = found if isinstance(found, ExecutionResult) else found.record
        self._check(request, known.session_id, *tools)
        return found

    async def _told(self, request: Request, tool: str, **more: Any) -> dict[str, Any]:
        given = {**request.path_params, "detail": "full", **more}
        return await call_tool(self._tools[tool], self._desk, request, given)

    async def _events_of_cell(
        self, request: Request, found: Execution | ExecutionResult, position: int
    ) -> AsyncGenerator[Event]:
        if isinstance(found, Execution):
            async for got in found.follow(position):
                if got.missed:
                    yield Event.of("missed", got.position, {"messages": got.missed})
                for each in got.entries:
                    if each.channel == "iopub" and each.msg_type in OUTPUTS:
                        head = f'{{"type": "{each.msg_type}", "content": '.encode()
                        yield Event("output", str(each.seq), head + each.content_json + b"}")
            await found.wait()
        yield Event.of("end", LAST, await self._told(request, "get_execution"))

    async def _events_of_command(
        self, request: Request, found: Command | CommandResult, position: int
    ) -> AsyncGenerator[Event]:
        if isinstance(found, Command):
            texts = {name: getincrementaldecoder("utf-8")("replace") for name in found.outputs}
            async for got in found.follow(position):
                if got.missed:
                    yield Event.of("missed", got.position, {"bytes": got.missed})
                at = got.position - sum(len(piece.data) for piece in got.entries)
                for piece in got.entries:
                    at += len(piece.data)
                    told = {"stream": piece.name, "text": texts[piece.name].decode(piece.data)}
                    # A character that has only begun is told with its rest.
                    yield Event.of("output", at - len(texts[piece.name].getstate()[0]), told)
            await found.wait()
        yield Event.of("end", LAST, await self._told(request, "get_command"))
