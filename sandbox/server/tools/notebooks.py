"""Notebooks: what a session ran as one."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from mcp_types import CallToolResult

from sandbox.files.models import FileStat
from sandbox.notebooks.ipynb import write_ipynb
from sandbox.notebooks.models import Notebook
from sandbox.notebooks.script import to_script
from sandbox.server import arguments as arg
from sandbox.server.desk import EXPORT, caller_of
from sandbox.server.http.place import Http
from sandbox.server.tool import CallContext, ToolGroup, reply, tool
from sandbox.server.wording import printable


class NotebookTools(ToolGroup):
    """The tools that act on notebooks."""

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


def _script(notebook: Notebook) -> bytes:
    return to_script(notebook).encode("utf-8", "replace")
