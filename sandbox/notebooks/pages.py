"""A notebook for a reader: a page of its cells, brief or with all that they hold, in bounds."""

from __future__ import annotations

from typing import Any, cast

from pydantic import Field

from sandbox.errors import InvalidRequest
from sandbox.notebooks.models import Cell, CellType, Notebook
from sandbox.outputs import mime
from sandbox.outputs.plain import clip, plain
from sandbox.outputs.readable import readable
from sandbox.values import Frozen

MAX_LIMIT = 200
MAX_TITLE = 120
MAX_SOURCE_BYTES = 16 * 1024
MAX_OUTPUT_BYTES = 8 * 1024
MAX_SHOWN_OUTPUTS = 20
"""Of one cell."""
MAX_PAGE_BYTES = 256 * 1024


class CellView(Frozen):
    """A cell as a reader sees it."""

    index: int
    cell_id: str
    cell_type: CellType
    source: str
    """Its first line in a brief view; else all of it, head and tail when it is long."""
    line_count: int
    execution_count: int | None = None
    outputs: tuple[str, ...] = ()
    """What each shows, as text; in a brief view what each is."""


class NotebookPage(Frozen):
    """A page of a notebook's cells."""

    total: int
    """The cells of the notebook."""
    start_index: int
    cells: tuple[CellView, ...] = Field(default=(), max_length=MAX_LIMIT)
    more: bool = False
    """Whether cells follow."""


def read_page(
    notebook: Notebook, start_index: int = 0, limit: int = 20, *, detailed: bool = False
) -> NotebookPage:
    """The cells from an index on: as many as asked for, and fewer where they are long.

    Raises:
        InvalidRequest: There can be no such page.
    """
    total = len(notebook.cells)
    if not 1 <= limit <= MAX_LIMIT or not 0 <= start_index <= total:
        raise InvalidRequest(
            f"A page has 1 to {MAX_LIMIT} cells, and starts at 0 to {total} in this notebook."
        )
    views: list[CellView] = []
    size = 0
    for index, cell in enumerate(notebook.cells[start_index : start_index + limit], start_index):
        view = cell_view(index, cell, detailed=detailed)
        size += len(view.source) + sum(map(len, view.outputs))
        if views and size > MAX_PAGE_BYTES:
            break
        views.append(view)
    more = start_index + len(views) < total
    return NotebookPage(total=total, start_index=start_index, cells=tuple(views), more=more)


def cell_view(index: int, cell: Cell, *, detailed: bool = True) -> CellView:
    """One cell for a reader."""
    shown = [
        clip(output_text(each), MAX_OUTPUT_BYTES) if detailed else _kind(each)
        for each in cell.outputs[:MAX_SHOWN_OUTPUTS]
    ]
    if (left_out := len(cell.outputs) - MAX_SHOWN_OUTPUTS) > 0:
        shown.append(f"[{left_out} more outputs]")
    return CellView(
        index=index,
        cell_id=cell.id,
        cell_type=cell.cell_type,
        source=clip(cell.source, MAX_SOURCE_BYTES) if detailed else cell.title[:MAX_TITLE],
        line_count=cell.source.count("\n") + bool(cell.source and cell.source[-1] != "\n"),
        execution_count=cell.execution_count,
        outputs=tuple(shown),
    )


def output_text(output: Any) -> str:
    """An output as plain text; of what has none, what it is and its size."""
    if output["output_type"] == "stream":
        return plain(output["text"])
    if output["output_type"] == "error":
        lines: list[str] = output["traceback"]
        return plain("\n".join(lines)) or plain(f"{output['ename']}: {output['evalue']}")
    data: dict[str, Any] = output["data"]
    others = [
        f"[{name}, {mime.size(value):,} bytes]"
        for name, value in data.items()
        if name.startswith(("image/", "audio/", "video/"))
    ]
    return "\n".join(filter(None, (plain(readable(data)), *others))) or ", ".join(data)


def _kind(output: Any) -> str:
    kind: str = output["output_type"]
    if kind == "stream":
        return f"{output['name'][:20]}, {mime.size(output['text']):,} bytes"
    if kind == "error":
        return clip(f"error {output['ename']}: {output['evalue']}", MAX_TITLE)
    return ", ".join(list(cast("dict[str, Any]", output["data"]))[:4])
