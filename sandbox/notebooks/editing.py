"""Edits of a notebook: each takes a value and answers another one with a diff of what changed.

Cells are named by index or id. Ids stay with their cells wherever those are moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sandbox.errors import InvalidRequest, NotFound, QuotaExceeded
from sandbox.notebooks.celldiff import cells_diff, order_diff, outputs_diff
from sandbox.notebooks.models import (
    CELL_TYPES,
    MAX_CELLS,
    Cell,
    CellRef,
    CellType,
    Notebook,
    check_length,
    checked_source,
    is_cell_id,
    new_cell_id,
)


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit made."""

    notebook: Notebook
    cell_ids: tuple[str, ...]
    """The cells that it was about."""
    diff: str
    """Unified; what is left out of a long one is said in it. Empty when nothing changed."""


def insert(
    notebook: Notebook,
    index: int,
    cell_type: CellType,
    source: str,
    *,
    cell_id: str = "",
) -> Edited:
    """Insert a cell before the one at an index; -1, or the number of cells, is the end.

    Args:
        cell_id: The id it gets; a new one when empty.

    Raises:
        NotFound: There is no such place.
        InvalidRequest: It cannot be a cell, or its id is taken.
        QuotaExceeded: The notebook is full.
    """
    count = len(notebook.cells)
    if not -1 <= index <= count:
        raise NotFound(f"A cell can be inserted at 0 to {count}, or at -1 for the end.")
    if cell_type not in CELL_TYPES:
        raise InvalidRequest(f"A cell is one of {', '.join(CELL_TYPES)}, not {cell_type!r:.40}.")
    if count >= MAX_CELLS:
        raise QuotaExceeded(f"The notebook has {count:,} cells, which is as many as may be.")
    if cell_id and (not is_cell_id(cell_id) or any(c.id == cell_id for c in notebook.cells)):
        raise InvalidRequest(f"{cell_id[:80]!r} cannot be the id of a new cell.")
    cell = Cell(cell_id or new_cell_id(notebook), cell_type, checked_source(source))
    at = count if index == -1 else index
    cells = (*notebook.cells[:at], cell, *notebook.cells[at:])
    return Edited(replace(notebook, cells=cells), (cell.id,), cells_diff([(None, cell)]))


def overwrite(notebook: Notebook, ref: CellRef, source: str) -> Edited:
    """Give a cell another source; its outputs stay as they are.

    Raises:
        NotFound: There is no such cell.
        InvalidRequest: It cannot be a cell's source.
    """
    index = notebook.index(ref)
    before = notebook.cells[index]
    after = replace(before, source=checked_source(source))
    diff = cells_diff([(before, after)])
    return Edited(notebook.with_cell(index, after), (after.id,), diff)


def edit(
    notebook: Notebook, ref: CellRef, old: str, new: str, *, replace_all: bool = False
) -> Edited:
    """Replace an exact text in a cell's source.

    Raises:
        NotFound: There is no such cell.
        InvalidRequest: The text is not in it, or several times without ``replace_all``.
    """
    cell = notebook.cell(ref)
    if not old or old == new:
        raise InvalidRequest(
            "There is nothing to replace: the old text is empty or equals the new one."
        )
    count = cell.source.count(old)
    if not count:
        raise InvalidRequest(
            f"Cell {cell.id} does not contain the old text.",
            remedy="Read the cell and give the text exactly, with its spaces and line ends.",
        )
    if count > 1 and not replace_all:
        raise InvalidRequest(
            f"Cell {cell.id} contains the old text {count} times.",
            remedy="Give more of the text around it, or set replace_all.",
        )
    check_length(len(cell.source) + count * (len(new) - len(old)))  # before so much is made
    return overwrite(notebook, cell.id, cell.source.replace(old, new))


def move(notebook: Notebook, ref: CellRef, target: CellRef) -> Edited:
    """Move a cell to where another one is; it then has that index.

    Raises:
        NotFound: There is no such cell or place.
    """
    source, at = notebook.index(ref), notebook.index(target)
    cell = notebook.cells[source]
    others = (*notebook.cells[:source], *notebook.cells[source + 1 :])
    moved = replace(notebook, cells=(*others[:at], cell, *others[at:]))
    return Edited(moved, (cell.id,), order_diff(notebook, moved))


def delete(notebook: Notebook, refs: Sequence[CellRef]) -> Edited:
    """Delete cells; indices are those before anything is deleted.

    Raises:
        NotFound: There is no such cell; then none was deleted.
    """
    gone = [notebook.cells[index] for index in sorted({notebook.index(ref) for ref in refs})]
    ids = {cell.id for cell in gone}
    cells = tuple(cell for cell in notebook.cells if cell.id not in ids)
    diff = cells_diff((cell, None) for cell in gone)
    return Edited(replace(notebook, cells=cells), tuple(cell.id for cell in gone), diff)


def clear(notebook: Notebook, refs: Sequence[CellRef] | None = None) -> Edited:
    """Take the outputs and counts of cells away, or of all cells when none are named.

    Raises:
        NotFound: There is no such cell; then none was cleared.
    """
    wanted = range(len(notebook.cells)) if refs is None else {notebook.index(ref) for ref in refs}
    before = [cell for at, cell in enumerate(notebook.cells) if at in wanted]
    after = {cell.id: replace(cell, outputs=(), execution_count=None) for cell in before}
    cells = tuple(after.get(cell.id, cell) for cell in notebook.cells)
    changed = [(cell, after[cell.id]) for cell in before if cell != after[cell.id]]
    return Edited(
        replace(notebook, cells=cells), tuple(cell.id for cell in before), outputs_diff(changed)
    )
