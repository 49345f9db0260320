"""What a model is told of a notebook: small, text first, every cell with its index and its id.

As with executions, the structured result is complete in itself and says what the content says;
what is empty is not sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent
from pydantic import BaseModel, Field

from sandbox.notebooks.editing import Edited
from sandbox.notebooks.models import Cell, Notebook
from sandbox.notebooks.pages import CellView, NotebookPage, cell_view
from sandbox.outputs.plain import plain
from sandbox.server.content import told
from sandbox.server.notebooksinuse import InUse
from sandbox.server.pictures import PICTURES, Shown, picture_type
from sandbox.server.results import Rich, output_texts, shortened
from sandbox.server.wording import printable

MAX_DIFF = 8000
"""The characters of a diff that a reader gets."""
MAX_PAGE_TEXT = 32 * 1024
"""Of the cells of one page."""
MAX_PAGE_OUTPUT = 2000
"""Of one output in a page; read_cell has more."""
MAX_OUTPUTS = 100
"""Of one cell that is read."""


class NotebookView(BaseModel, frozen=True):
    """A notebook and some of its cells, or what became of it; what is empty is left out."""

    session_id: str
    notebook_name: str = ""
    notebook_path: str = ""
    kernel_id: str = ""
    """That runs its cells; empty before there is one."""
    total: int = 0
    """The cells of the notebook."""
    cells: list[CellView] = Field(default_factory=list[CellView])
    diff: str = ""
    """What an edit changed."""
    rich: list[Rich] = Field(default_factory=list[Rich])
    next: str = ""
    """What to do to see more."""
    notes: list[str] = Field(default_factory=list[str])


class NotebookRow(BaseModel, frozen=True):
    """A notebook in a list of them."""

    notebook_name: str = ""
    """Empty for one that is open, and that the caller has no name for."""
    notebook_path: str
    is_current: bool = False
    kernel_id: str = ""
    total: int = 0
    """Its cells; 0 too where it is not open."""
    people: list[str] = Field(default_factory=list[str])
    """Who has it open."""
    problem: str = ""
    """Why its file does not have what it has."""


class NotebookList(BaseModel, frozen=True):
    """The notebooks of a session that a caller uses, and what else is open in it."""

    session_id: str
    notebooks: list[NotebookRow]


def view_of(used: InUse, notebook: Notebook, **more: Any) -> NotebookView:
    """What is told of a notebook."""
    notes = [*more.pop("notes", ()), *used.notes]
    return NotebookView(
        session_id=used.session.session_id,
        notebook_name=used.named.name,
        notebook_path=used.named.path,
        kernel_id=used.live.kernel_id,
        total=len(notebook.cells),
        notes=notes,
        **more,
    )


def answer(view: NotebookView, *said: str | ContentBlock) -> CallToolResult:
    """A tool's answer: what is said, then what else its caller must know."""
    tail = "\n".join(f"[{each}]" for each in (*view.notes, view.next) if each)
    return told(view, [*said, *([tail] if tail else [])])


def edited_answer(used: InUse, edited: Edited, what: str, *notes: str) -> CallToolResult:
    """What an edit did.

    Args:
        edited: With the notebook in which its cells are: as it was for those that are gone.
        what: What was done, such as ``Inserted``.
    """
    wanted = set(edited.cell_ids)
    views = [
        cell_view(index, cell, detailed=False)
        for index, cell in enumerate(edited.notebook.cells)
        if cell.id in wanted
    ]
    shown = shortened(edited.diff, MAX_DIFF)
    total = used.live.read()
    view = view_of(used, total, cells=views, diff=shown, notes=notes)
    which = ", ".join(f"{each.index} (id {each.cell_id}, {each.cell_type})" for each in views)
    cells = "cell" if len(views) == 1 else "cells"
    line = f"{what} {cells} {which} of {printable(used.named.name)!r}, of {view.total} cells now."
    return answer(view, "\n".join(filter(None, (line, shown.rstrip("\n")))))


def heading(used: InUse, total: int) -> str:
    """A notebook in a line."""
    kernel = f", kernel {used.live.kernel_id}" if used.live.kernel_id else ""
    path = printable(used.named.path)
    return f"{printable(used.named.name)!r} ({path}): {total} cells{kernel}"


def page_text(page: NotebookPage, *, detailed: bool) -> str:
    """The cells of a page, for a reader."""
    if not page.cells:
        return "The notebook has no cells." if not page.total else "There are no cells from there."
    if detailed:
        return "\n".join(cell_text(view) for view in page.cells)
    return "\n".join(
        ["index\tid\ttype\tcount\tfirst line", *(_row(view) for view in page.cells)],
    )


def cell_head(view: CellView) -> str:
    """Which cell it is."""
    count = "" if view.execution_count is None else f" | execution count: {view.execution_count}"
    return f"===== Cell {view.index} | id: {view.cell_id} | type: {view.cell_type}{count} ====="


def cell_text(view: CellView) -> str:
    """A cell with all that is shown of it."""
    outputs = [f"----- output -----\n{each}" for each in view.outputs]
    return "\n".join([cell_head(view), view.source, *outputs])


def page_of(page: NotebookPage, *, detailed: bool) -> NotebookPage:
    """A page whose outputs are no longer than a reader of many cells wants them."""
    if not detailed:
        return page
    views = [
        view.model_copy(
            update={"outputs": tuple(shortened(each, MAX_PAGE_OUTPUT) for each in view.outputs)}
        )
        for view in page.cells
    ]
    size, count = 0, 0
    for view in views:
        size += len(view.source) + sum(map(len, view.outputs))
        if count and size > MAX_PAGE_TEXT:
            break
        count += 1
    more = page.more or count < len(views)
    return page.model_copy(update={"cells": tuple(views[:count]), "more": more})


def next_page(page: NotebookPage) -> str:
    """How to read on; empty where that was all."""
    if not page.more:
        return ""
    return f"read_notebook(start_index={page.start_index + len(page.cells)}) has more"


def outputs_of(cell: Cell) -> list[dict[str, Any]]:
    """A cell's outputs as executions have them: a picture's base64 is in one line there."""
    return [_unwrapped(dict(each)) for each in cell.outputs[:MAX_OUTPUTS]]


def read_view(
    index: int, cell: Cell, outputs: Sequence[dict[str, Any]], shown: Sequence[Shown], limit: int
) -> CellView:
    """A cell of which the outputs are shown as those of an execution are."""
    texts = [plain(each).strip("\n") for each in output_texts(outputs, shown)]
    share = max(limit // max(len(texts), 1), 500)
    left, kept = limit, list[str]()
    for text in texts:
        cut = shortened(text, max(min(left, max(share, left // 2)), 200))
        left -= len(cut)
        kept.append(cut)
    if (more := len(cell.outputs) - len(texts)) > 0:
        kept.append(f"[{more} more outputs are left out]")
    return cell_view(index, cell).model_copy(update={"outputs": tuple(filter(None, kept))})


def rich_of(uri: str, shown: Sequence[Shown]) -> list[Rich]:
    """References to a cell's pictures."""
    return [
        Rich(
            type=each.picture.mime,
            bytes=each.picture.size_bytes,
            width=each.picture.width,
            height=each.picture.height,
            uri=f"{uri}/outputs/{each.picture.output}",
        )
        for each in shown
    ]


def pictures(shown: Sequence[Shown]) -> list[ContentBlock]:
    """Pictures that are shown."""
    return [
        ImageContent(type="image", data=each.data, mime_type=each.mime)
        for each in shown
        if each.data
    ]


def _unwrapped(output: dict[str, Any]) -> dict[str, Any]:
    if picture_type(output):
        data = {
            name: "".join(value.split()) if name in PICTURES and isinstance(value, str) else value
            for name, value in output["data"].items()
        }
        return {**output, "data": data}
    return output


def _row(view: CellView) -> str:
    count = "" if view.execution_count is None else str(view.execution_count)
    more = f" (+{view.line_count - 1} lines)" if view.line_count > 1 else ""
    shows = f" -> {'; '.join(map(printable, view.outputs))}" if view.outputs else ""
    line = f"{printable(view.source)}{more}{shows}"
    return f"{view.index}\t{view.cell_id}\t{view.cell_type}\t{count}\t{line}"
