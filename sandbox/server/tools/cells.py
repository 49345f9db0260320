"""The cells of a notebook: reading and editing them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import quote

import anyio.to_thread
from mcp_types import CallToolResult

from sandbox.errors import InvalidRequest
from sandbox.notebooks import editing
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.models import Cell, CellRef, Notebook
from sandbox.server import arguments as arg
from sandbox.server.desk import Desk
from sandbox.server.http.place import BY_PATH, Http
from sandbox.server.notebooksinuse import LEFT_OUT, Which, in_use
from sandbox.server.notebookviews import (
    NotebookView,
    answer,
    cell_head,
    edited_answer,
    outputs_of,
    pictures,
    read_view,
    rich_of,
    view_of,
)
from sandbox.server.pictures import Picture, pictures_of
from sandbox.server.showing import Showing
from sandbox.server.tool import CallContext, ToolGroup, tool
from sandbox.sessions.session import Session

CODE = "code"


class CellTools(ToolGroup):
    """The tools that act on cells without running them."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._showing = Showing(desk.shaping)

    @tool(
        "Insert a cell",
        http=Http(
            "POST",
            "/sessions/{session_id}/notebooks/{path:path}/cells",
            201,
            is_large=True,
            stands_for=BY_PATH,
        ),
    )
    async def insert_cell(
        self,
        ctx: CallContext,
        cell_index: arg.CellPlace,
        cell_type: arg.CellType,
        cell_source: arg.CellSource,
        notebook_name: arg.NotebookName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Insert a cell before the one at an index, and answer its id."""
        async with in_use(self._desk, ctx, session_id, "insert_cell", notebook_name) as used:
            edited = await used.edit(
                lambda notebook: editing.insert(notebook, cell_index, cell_type, cell_source)
            )
            return edited_answer(used, edited, "Inserted")

    @tool(
        "Replace a cell's source",
        destroys=True,
        repeatable=True,
        http=Http(
            "PUT",
            "/sessions/{session_id}/notebooks/{path:path}/cells/{cell_id}",
            is_large=True,
            stands_for=BY_PATH,
        ),
    )
    async def overwrite_cell_source(
        self,
        ctx: CallContext,
        cell_source: arg.CellSource,
        cell_index: arg.CellIndex = LEFT_OUT,
        cell_id: arg.CellId = "",
        notebook_name: arg.NotebookName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Give a cell another source, and answer the diff; its outputs stay."""
        which = Which(cell_index, cell_id)
        tool = "overwrite_cell_source"
        async with in_use(self._desk, ctx, session_id, tool, notebook_name) as used:
            edited = await used.edit(
                lambda notebook: editing.overwrite(notebook, which.of(notebook), cell_source)
            )
            notes = [] if edited.diff else ["it said that already: nothing was changed"]
            return edited_answer(used, edited, "Overwrote", *notes)

    @tool(
        "Edit a cell's source",
        destroys=True,
        http=Http(
            "POST",
            "/sessions/{session_id}/notebooks/{path:path}/cells/{cell_id}/edit",
            is_large=True,
            stands_for=BY_PATH,
        ),
    )
    async def edit_cell_source(
        self,
        ctx: CallContext,
        old_string: arg.Replaced,
        new_string: arg.Replacement,
        replace_all: bool = False,
        cell_index: arg.CellIndex = LEFT_OUT,
        cell_id: arg.CellId = "",
        notebook_name: arg.NotebookName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Replace a text that is in a cell once, and answer the diff."""
        which = Which(cell_index, cell_id)
        async with in_use(self._desk, ctx, session_id, "edit_cell_source", notebook_name) as used:
            edited = await used.edit(
                lambda notebook: editing.edit(
                    notebook, which.of(notebook), old_string, new_string, replace_all=replace_all
                )
            )
            return edited_answer(used, edited, "Edited")

    @tool(
        "Move a cell",
        destroys=True,
        http=Http(
            "POST",
            "/sessions/{session_id}/notebooks/{path:path}/cells/{source_cell_id}/move",
            stands_for=BY_PATH,
        ),
    )
    async def move_cell(
        self,
        ctx: CallContext,
        source_index: arg.CellIndex = LEFT_OUT,
        target_index: arg.CellIndex = LEFT_OUT,
        source_cell_id: arg.CellId = "",
        target_cell_id: arg.CellId = "",
        notebook_name: arg.NotebookName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Move a cell to where another one is; it then has that index."""
        source = Which(source_index, source_cell_id, "source_index", "source_cell_id")
        target = Which(target_index, target_cell_id, "target_index", "target_cell_id")
        async with in_use(self._desk, ctx, session_id, "move_cell", notebook_name) as used:
            edited = await used.edit(
                lambda notebook: editing.move(notebook, source.of(notebook), target.of(notebook))
            )
            return edited_answer(used, edited, "Moved")

    @tool(
        "Delete cells",
        destroys=True,
        http=Http(
            "DELETE", "/sessions/{session_id}/notebooks/{path:path}/cells", stands_for=BY_PATH
        ),
    )
    async def delete_cell(
        self,
        ctx: CallContext,
        cell_indices: arg.CellIndices = (),
        cell_ids_to_delete: arg.CellIds = (),
        include_source: arg.IncludeSource = True,
        notebook_name: arg.NotebookName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Delete cells, and answer their sources too."""
        before = Notebook()

        def delete(notebook: Notebook) -> Edited:
            nonlocal before
            before = notebook
            return editing.delete(notebook, _all_of(notebook, cell_indices, cell_ids_to_delete))

        async with in_use(self._desk, ctx, session_id, "delete_cell", notebook_name) as used:
            edited = await used.edit(delete)
            diff = edited.diff if include_source else ""
            return edited_answer(used, replace(edited, notebook=before, diff=diff), "Deleted")

    @tool(
        "Clear a cell's outputs",
        destroys=True,
        repeatable=True,
        http=Http(
            "DELETE",
            "/sessions/{session_id}/notebooks/{path:path}/cells/{cell_id}/outputs",
            stands_for=BY_PATH,
        ),
    )
    async def clear_cell_output(
        self,
        ctx: CallContext,
        cell_index: arg.CellIndex = LEFT_OUT,
        cell_id: arg.CellId = "",
        notebook_name: arg.NotebookName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Take a code cell's outputs and execution count away."""
        which = Which(cell_index, cell_id)

        def clear(notebook: Notebook) -> Edited:
            ref = which.of(notebook)
            if (cell := notebook.cell(ref)).cell_type != CODE:
                raise InvalidRequest(f"Cell {cell.id} is {cell.cell_type}, which has no outputs.")
            return editing.clear(notebook, [ref])

        async with in_use(self._desk, ctx, session_id, "clear_cell_output", notebook_name) as used:
            edited = await used.edit(clear)
            notes = [] if edited.diff else ["it had no outputs"]
            return edited_answer(used, edited, "Cleared", *notes)

    @tool(
        "Read a cell",
        reads=True,
        http=Http(
            "GET",
            "/sessions/{session_id}/notebooks/{path:path}/cells/{cell_id}",
            stands_for=BY_PATH,
        ),
    )
    async def read_cell(
        self,
        ctx: CallContext,
        cell_index: arg.CellIndex = LEFT_OUT,
        cell_id: arg.CellId = "",
        include_outputs: arg.IncludeOutputs = True,
        notebook_name: arg.NotebookName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Read a cell's source and outputs, pictures too."""
        which = Which(cell_index, cell_id)
        which.check()
        host = self._desk.shaping.host(ctx.request_context.session)
        async with in_use(self._desk, ctx, session_id, "read_cell", notebook_name) as used:
            notebook = used.live.read()
            index = notebook.index(which.of(notebook))
            cell = notebook.cells[index]

            async def its_session() -> Session | None:
                return used.session

            outputs, found = await anyio.to_thread.run_sync(_shown_of, cell, include_outputs)
            shown = await self._showing.shown(found, host, its_session)
            read = await anyio.to_thread.run_sync(
                read_view, index, cell, outputs, shown, host.max_text
            )
            if not include_outputs:
                read = read.model_copy(update={"outputs": ()})
            uri = f"notebook://{quote(used.named.name, safe='')}/cells/{cell.id}"
            view = view_of(used, notebook, cells=[read], rich=rich_of(uri, shown))
        said = (cell_head(read), read.source, *read.outputs)
        return answer(view, *filter(None, said), *pictures(shown))


def _shown_of(cell: Cell, include_outputs: bool) -> tuple[list[dict[str, Any]], list[Picture]]:
    """What is shown of a cell's outputs, and the pictures among them."""
    outputs = outputs_of(cell) if include_outputs else []
    return outputs, pictures_of(outputs)


def _all_of(
    notebook: Notebook, indices: tuple[int, ...], cell_ids: tuple[str, ...]
) -> list[CellRef]:
    """The cells that are named by either."""
    if not indices and not cell_ids:
        raise InvalidRequest(
            "No cell is named.", remedy="Give cell_indices, from 0, or cell_ids_to_delete."
        )
    if not cell_ids:
        return list(indices)
    by_id = {notebook.index(cell_id) for cell_id in cell_ids}
    if indices and {notebook.index(index) for index in indices} != by_id:
        raise InvalidRequest(
            "cell_indices and cell_ids_to_delete name different cells.",
            remedy="Give cell_ids_to_delete alone.",
        )
    return list(cell_ids)
