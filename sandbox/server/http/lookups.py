"""What is over HTTP only: one kernel, one output, a session as a notebook, and the administrator's
view of everybody's sessions and of the pool."""

from __future__ import annotations

import anyio.to_thread
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.errors import NotFound
from sandbox.kernels.models import ExecutionResult, KernelInfo
from sandbox.notebooks.ipynb import write_ipynb
from sandbox.server.desk import EXPORT, caller_of_request, grant_of_request
from sandbox.server.download import HARMLESS
from sandbox.server.executionresources import output_data, output_index, without_secrets
from sandbox.server.http.operation import JSON, EndpointGroup, NoArguments, endpoint
from sandbox.server.http.place import Http
from sandbox.server.pictures import header
from sandbox.server.scopes import ADMIN
from sandbox.sessions.models import SessionInfo
from sandbox.sessions.poolinfo import ShelfInfo

IPYNB = "application/x-ipynb+json"


class OwnedSession(SessionInfo, frozen=True):
    """A session, and whose it is."""

    principal: str


class EverybodysSessions(BaseModel):
    """The open sessions of all principals."""

    sessions: list[OwnedSession]


class PoolInfo(BaseModel):
    """The sandboxes that are kept ready, by policy."""

    policies: list[ShelfInfo]


class LookupEndpoints(EndpointGroup):
    """What has no tool of its own."""

    @endpoint(
        "Look at a kernel",
        Http("GET", "/sessions/{session_id}/kernels/{kernel_id}"),
        tool="list_kernels",
        result=KernelInfo,
    )
    async def get_kernel(self, request: Request, _: NoArguments) -> Response:
        """Look at a kernel: its state, and how many cells wait."""
        session = await self._session(request, "list_kernels")
        wanted = request.path_params["kernel_id"]
        async with session.use():
            found = [each for each in session.kernels.infos if each.kernel_id == wanted]
        if not found:
            raise NotFound("The session has no such kernel.", remedy="List its kernels.")
        return JSONResponse(session.redactor.data(found[0].model_dump(mode="json")))

    @endpoint(
        "Look at an output",
        Http("GET", "/sessions/{session_id}/executions/{execution_id}/outputs/{index}"),
        tool="get_execution",
        media=(JSON, "image/*"),
    )
    async def get_output(self, request: Request, _: NoArguments) -> Response:
        """Answer one output of a cell, counted from 0: a picture as its bytes, any other as its
        mime bundle in JSON."""
        caller, asked = caller_of_request(request), request.path_params
        found = await self._manager.execution(caller, asked["execution_id"])
        result = found if isinstance(found, ExecutionResult) else found.snapshot()
        self._check(request, result.session_id, "get_execution")
        at = output_index(asked["index"], len(result.outputs))
        redactor = self._manager.redactor(caller.principal, result.session_id)
        result = await anyio.to_thread.run_sync(without_secrets, result, redactor)
        data = await anyio.to_thread.run_sync(output_data, result.outputs[at])
        if isinstance(data, str):
            return Response(data, media_type=JSON, headers=HARMLESS)
        kind = header(data)
        return Response(data, media_type=kind.mime if kind else None, headers=HARMLESS)

    @endpoint(
        "Download what a session ran",
        Http("GET", "/sessions/{session_id}/export"),
        tool="export_session",
        media=(IPYNB,),
    )
    async def download_session(self, request: Request, _: NoArguments) -> Response:
        """Answer what a session ran as a notebook; also some time after its end."""
        caller, session_id = caller_of_request(request), request.path_params["session_id"]
        await self._manager.ready()
        self._check(request, session_id, *EXPORT)
        redactor = self._manager.redactor(caller.principal, session_id)
        notebook = await self._manager.history.notebook(caller, session_id, redactor)
        data = await anyio.to_thread.run_sync(write_ipynb, notebook)
        headers = {"Content-Disposition": 'attachment; filename="session.ipynb"', **HARMLESS}
        return Response(data, media_type=IPYNB, headers=headers)

    @endpoint(
        "List everybody's sessions",
        Http("GET", "/admin/sessions"),
        scope=ADMIN,
        result=EverybodysSessions,
    )
    async def list_everybodys_sessions(self, request: Request, _: NoArguments) -> Response:
        """List the open sessions of all principals."""
        found = [
            {"principal": principal, **info.model_dump(mode="json")}
            for principal, info in self._manager.everybodys()
        ]
        return JSONResponse({"sessions": found})

    @endpoint(
        "Close anybody's session",
        Http("DELETE", "/admin/sessions/{session_id}"),
        scope=ADMIN,
        result=SessionInfo,
    )
    async def close_anybodys_session(self, request: Request, _: NoArguments) -> Response:
        """Close a session of any principal."""
        by = grant_of_request(request).principal
        info = await self._manager.close_anybodys(request.path_params["session_id"], by)
        return JSONResponse(info.model_dump(mode="json"))

    @endpoint(
        "Look at the pool",
        Http("GET", "/admin/pool"),
        scope=ADMIN,
        result=PoolInfo,
    )
    async def look_at_pool(self, request: Request, _: NoArguments) -> Response:
        """Look at the sandboxes that are kept ready for sessions, by policy."""
        return JSONResponse(PoolInfo(policies=self._manager.pool.infos()).model_dump(mode="json"))
