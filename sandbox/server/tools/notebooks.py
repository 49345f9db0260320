"""Notebooks: using, reading and running them, and what a session ran as one."""

from __future__ import annotations

import posixpath
from typing import Annotated

import anyio.to_thread
from mcp_types import CallToolResult

from sandbox.collaboration.contracts import LiveNotebook
from sandbox.errors import Conflict, FileError, InvalidRequest
from sandbox.files.models import FileStat
from sandbox.notebooks.ipynb import write_ipynb
from sandbox.notebooks.models import Notebook, kernel_of
from sandbox.notebooks.pages import MAX_LIMIT, read_page
from sandbox.notebooks.script import to_script
from sandbox.server import arguments as arg
from sandbox.server.desk import EXPORT, agree, caller_of, grant_of, permit_here
from sandbox.server.http.place import BY_PATH, Http
from sandbox.server.notebooksinuse import (
    InUse,
    agreed,
    author_of,
    in_use,
    taken,
    where_used,
)
from sandbox.server.notebookviews import (
    NotebookList,
    NotebookRow,
    NotebookView,
    answer,
    heading,
    next_page,
    page_of,
    page_text,
    view_of,
)
from sandbox.server.tool import CallContext, ToolGroup, reply, tool
from sandbox.server.wording import printable
from sandbox.sessions.notebooknames import Named
from sandbox.sessions.session import Session

NEW_KERNEL = "NEW"
FIRST_CELLS = 20


class NotebookTools(ToolGroup):
    """The tools that act on notebooks."""

    @tool(
        "Use a notebook",
        repeatable=True,
        http="PUT /sessions/{session_id}/notebooks/{path}, by which requests name a notebook",
    )
    async def use_notebook(
        self,
        ctx: CallContext,
        notebook_name: arg.NotebookLabel,
        notebook_path: arg.NotebookPath = "",
        mode: arg.NotebookMode = "connect",
        kernel_id: arg.NotebookKernel = "",
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Open a notebook, or create an empty one, and make it your current one.

        People may edit it live meanwhile; it saves itself.
        """
        key = caller_of(ctx).default_key
        if kernel_id:
            grant_of(ctx).require("start_kernel")
        async with self._desk.session(ctx, session_id, "use_notebook") as session:
            if kernel_id == NEW_KERNEL:
                permit_here(ctx, session.policy, "start_kernel")
                await agree(ctx, session, ("start_kernel",), {})
            names = session.notebook_names
            path = notebook_path or names.find(key, notebook_name).path
            path = posixpath.normpath(posixpath.join(session.workspace, path))
            names.check(key, notebook_name, path)
            live = await _opened(session, path, mode)
            names.check(key, notebook_name, live.path)
            if kernel_id:
                await live.use_kernel(await _kernel(session, live, kernel_id))
            names.use(key, notebook_name, live.path)
            named = Named(notebook_name, live.path, is_current=True)
            used = InUse(session, named, live, author_of(ctx))
            return await _read(used, 0, FIRST_CELLS, is_detailed=False)

    @tool(
        "List notebooks",
        reads=True,
        http=Http("GET", "/sessions/{session_id}/notebooks", items="notebooks"),
    )
    async def list_notebooks(
        self, ctx: CallContext, session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, NotebookList]:
        """List the notebooks that you use, and what else is open in the session."""
        async with self._desk.session(ctx, session_id, "list_notebooks") as session:
            found = NotebookList(
                session_id=session.session_id,
                notebooks=_rows(session, caller_of(ctx).default_key),
            )
        lines = [_line(row) for row in found.notebooks]
        return reply(found, "\n".join(lines) or "You use no notebook; use_notebook opens one.")

    @tool(
        "Read a notebook",
        reads=True,
        http=Http(
            "GET",
            "/sessions/{session_id}/notebooks/{path:path}/cells",
            items="cells",
            stands_for=BY_PATH,
        ),
    )
    async def read_notebook(
        self,
        ctx: CallContext,
        notebook_name: arg.NotebookName = "",
        response_format: arg.ResponseFormat = "brief",
        start_index: arg.StartIndex = 0,
        limit: arg.CellLimit = FIRST_CELLS,
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Read the cells of a notebook, with their ids and indices."""
        async with in_use(self._desk, ctx, session_id, "read_notebook", notebook_name) as used:
            is_detailed = response_format == "detailed"
            return await _read(used, start_index, limit, is_detailed=is_detailed)

    @tool(
        "Restart a notebook's kernel",
        destroys=True,
        http=Http(
            "POST", "/sessions/{session_id}/notebooks/{path:path}/restart", stands_for=BY_PATH
        ),
    )
    async def restart_notebook(
        self,
        ctx: CallContext,
        notebook_name: arg.NotebookName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Restart its kernel: variables are gone, cells and outputs stay."""
        tool = "restart_notebook"
        async with in_use(self._desk, ctx, session_id, tool, notebook_name) as used:
            await agreed(ctx, used, tool)
            kernel_id = await used.live.use_kernel(restart=True)
            view = view_of(used, used.live.read())
        return answer(view, f"Restarted kernel {kernel_id} of {printable(used.named.name)!r}.")

    @tool(
        "Stop using a notebook",
        repeatable=True,
        http="POST /sessions/{session_id}/notebooks/{path}/close",
    )
    async def unuse_notebook(
        self,
        ctx: CallContext,
        notebook_name: arg.UsedNotebookName,
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, NotebookView]:
        """Save a notebook and give its name up; its kernel goes on."""
        key = caller_of(ctx).default_key
        session_id = session_id or where_used(self._desk, ctx, notebook_name)
        async with self._desk.session(ctx, session_id, "unuse_notebook") as session:
            names = session.notebook_names
            named = names.find(key, notebook_name)
            live = _open_at(session, named.path)
            notes = [] if live is None else await _saved(live)
            current = names.release(key, notebook_name)
            if live is not None and all(each.path != live.path for each in names.of(key)):
                live.leave(author_of(ctx))
            if not notes and not names.is_used(named.path):
                await session.notebooks.close(named.path)
            view = NotebookView(
                session_id=session.session_id,
                notebook_name=current,
                notes=[*notes, *([f"your current notebook is {current!r} now"] if current else [])],
            )
        return answer(view, f"You no longer use {printable(notebook_name)!r}.")

    @tool(
        "Export a session",
        destroys=True,
        repeatable=True,
        http=Http("POST", "/sessions/{session_id}/export"),
    )
    async def export_session(
        self,
        ctx: CallContext,
        session_id: arg.SessionId = "",
        path: arg.ExportPath = "",
        format: arg.ExportFormat = "ipynb",
    ) -> Annotated[CallToolResult, FileStat]:
        """Write what the session ran, with outputs, into a notebook that runs again."""
        async with self._desk.session(ctx, session_id, *EXPORT) as session:
            notebook = await self._manager.history.notebook(
                caller_of(ctx), session.session_id, session.redactor
            )
            written = write_ipynb if format == "ipynb" else _script
            data = await anyio.to_thread.run_sync(written, notebook)
            stat = await session.files.write(path or f"session.{format}", data)
        told = f"Wrote {len(notebook.cells)} cells, {stat.size} bytes, to {printable(stat.path)}."
        return reply(stat, told)


async def _opened(session: Session, path: str, mode: str) -> LiveNotebook:
    """The notebook at a path, which is there already or must not be."""
    notebooks = session.notebooks
    if mode != "create":
        try:
            return await notebooks.open(path)
        except FileError as exc:
            remedy = exc.remedy
            if exc.reason == "not_found":
                remedy = 'mode="create" makes an empty one; list_files shows what is there.'
            raise FileError(exc.reason, exc.message, remedy=remedy) from exc
    if _open_at(session, path) is not None:
        raise taken(path)
    try:
        await session.files.stat(path)
    except FileError as exc:
        if exc.reason != "not_found":
            raise
        return await notebooks.open(path, create=True)
    raise taken(path)


async def _saved(live: LiveNotebook) -> list[str]:
    """Save a notebook; what to tell where it cannot be."""
    try:
        await live.save()
    except (Conflict, FileError, InvalidRequest) as exc:
        return [f"it is not saved, and stays open: {live.problem or exc}"]
    return []


def _open_at(session: Session, path: str) -> LiveNotebook | None:
    return next((live for live in session.notebooks.opened if live.path == path), None)


async def _kernel(session: Session, live: LiveNotebook, kernel_id: str) -> str:
    """The kernel that is wanted; a new one of the kind that the notebook names."""
    if kernel_id != NEW_KERNEL:
        return kernel_id
    named, _ = kernel_of(live.read())
    specs = await session.kernels.kernelspecs()
    info = await session.kernels.start(*([named] if named in specs else []))
    return info.kernel_id


async def _read(used: InUse, start: int, limit: int, *, is_detailed: bool) -> CallToolResult:
    notebook = used.live.read()
    wanted = min(limit or MAX_LIMIT, MAX_LIMIT)

    def read() -> tuple[NotebookView, str]:
        page = read_page(notebook, start, wanted, detailed=is_detailed)
        page = page_of(page, detailed=is_detailed)
        view = view_of(used, notebook, cells=list(page.cells), next=next_page(page))
        return view, f"{heading(used, page.total)}\n{page_text(page, detailed=is_detailed)}"

    return answer(*await anyio.to_thread.run_sync(read))


def _rows(session: Session, key: str) -> list[NotebookRow]:
    there = {live.path: live for live in session.notebooks.opened}
    named = session.notebook_names.of(key)
    mine = {each.path for each in named}
    unnamed = [Named("", path, is_current=False) for path in there if path not in mine]
    return [_row(each, there.get(each.path)) for each in (*named, *unnamed)]


def _row(named: Named, live: LiveNotebook | None) -> NotebookRow:
    if live is None:
        return NotebookRow(
            notebook_name=named.name, notebook_path=named.path, is_current=named.is_current
        )
    return NotebookRow(
        notebook_name=named.name,
        notebook_path=named.path,
        is_current=named.is_current,
        kernel_id=live.kernel_id,
        total=len(live.read().cells),
        people=sorted({printable(each.name, 64) for each in live.people})[:20],
        problem=live.problem,
    )


def _line(row: NotebookRow) -> str:
    parts = [
        f"{printable(row.notebook_name)!r}" if row.notebook_name else "(not yours by name)",
        printable(row.notebook_path),
        f"{row.total} cells",
        *([f"kernel {row.kernel_id}"] if row.kernel_id else []),
        *([f"open by {', '.join(row.people)}"] if row.people else []),
        *(["current"] if row.is_current else []),
        *([row.problem] if row.problem else []),
    ]
    return "\t".join(parts)


def _script(notebook: Notebook) -> bytes:
    return to_script(notebook).encode("utf-8", "replace")
