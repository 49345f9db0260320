"""Notebooks over HTTP, each at its path: opening and closing one, and deleting one cell."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.errors import FileError
from sandbox.server.http.calling import calling
from sandbox.server.http.operation import EndpointGroup, NoArguments, endpoint
from sandbox.server.http.place import Http
from sandbox.server.http.tooling import call_tool
from sandbox.server.notebooksinuse import InUse, author_of, in_use, named_by_path
from sandbox.server.notebookviews import NotebookView, view_of

_NOTEBOOK = "/sessions/{session_id}/notebooks/{path:path}"


class NotebookEndpoints(EndpointGroup):
    """What tools do with notebooks by names that their callers give."""

    @endpoint(
        "Open a notebook",
        Http("PUT", _NOTEBOOK),
        tool="use_notebook",
        result=NotebookView,
        statuses={201: "There was no such file: an empty notebook was made."},
    )
    async def open_notebook(self, request: Request, _: NoArguments) -> Response:
        """Open a notebook, or make an empty one where there is no file, and answer what it is."""
        session = await self._session(request, "use_notebook")
        context, status = calling(request, {}), 200
        named = named_by_path(context)
        async with session.use():
            try:
                live = await session.notebooks.open(named.path)
            except FileError as exc:
                if exc.reason != "not_found":
                    raise
                live, status = await session.notebooks.open(named.path, create=True), 201
            used = InUse(session, named, live, author_of(context))
            return self._answer(used, status)

    @endpoint(
        "Close a notebook",
        Http("POST", f"{_NOTEBOOK}/close"),
        tool="unuse_notebook",
        result=NotebookView,
    )
    async def close_notebook(self, request: Request, _: NoArguments) -> Response:
        """Save a notebook, and close it unless somebody else has it open."""
        context, session_id = calling(request, {}), request.path_params["session_id"]
        async with in_use(self._desk, context, session_id, "unuse_notebook") as used:
            await used.live.save()
            answer = self._answer(used, 200)
            if not used.session.notebook_names.is_used(used.live.path):
                used.live.leave(used.author)
                await used.session.notebooks.close(used.live.path)
            return answer

    @endpoint(
        "Delete a cell",
        Http("DELETE", f"{_NOTEBOOK}/cells/{{cell_id}}"),
        tool="delete_cell",
        result=NotebookView,
    )
    async def delete_one_cell(self, request: Request, _: NoArguments) -> Response:
        """Delete a cell, and answer its source too."""
        asked = request.path_params
        given = {"session_id": asked["session_id"], "cell_ids_to_delete": [asked["cell_id"]]}
        told = await call_tool(self._tools["delete_cell"], self._desk, request, given)
        return JSONResponse(told)

    def _answer(self, used: InUse, status: int) -> Response:
        view = view_of(used, used.live.read()).model_dump(mode="json", exclude_defaults=True)
        return JSONResponse(used.session.redactor.data(view), status)
