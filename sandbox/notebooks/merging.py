"""Two versions of a notebook with a common ancestor made one: by cell, and never by guessing.

Cells are told apart by their ids. What only one side has changed is taken from it; what both have
changed in the same way, once. Where both have changed the same thing differently, nothing is
merged, and it is said where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from sandbox.errors import Conflict
from sandbox.notebooks.models import Cell, Notebook

MAX_TOLD = 8

_Value = TypeVar("_Value")
_MISSING: Any = object()


def merge(base: Notebook, ours: Notebook, theirs: Notebook) -> Notebook:
    """Both sides' changes of ``base`` in one notebook.

    Raises:
        Conflict: They contradict each other; the message names the cells, by id, and what of them.
    """
    merging = _Merging()
    before, left, right = _by_id(base), _by_id(ours), _by_id(theirs)
    cells: dict[str, Cell] = {}
    for cell_id in {**before, **left, **right}:
        found = merging.cell(cell_id, before.get(cell_id), left.get(cell_id), right.get(cell_id))
        if found is not None:
            cells[cell_id] = found
    order = merging.order(base, ours, theirs, cells.keys())
    metadata = merging.mapping(
        "the notebook's metadata", *(each.metadata for each in (base, ours, theirs))
    )
    if merging.conflicts:
        raise _contradiction(merging.conflicts)
    return Notebook(tuple(cells[cell_id] for cell_id in order), metadata)


class _Merging:
    """One merge and what stands against it."""

    def __init__(self) -> None:
        self.conflicts: list[str] = []

    def cell(
        self, cell_id: str, base: Cell | None, ours: Cell | None, theirs: Cell | None
    ) -> Cell | None:
        """A cell with both sides' changes; None where it is deleted."""
        if ours is None or theirs is None or base is None:
            where = f"cell {cell_id} (deleted by one, changed by the other)"
            if base is None:
                where = f"cell {cell_id} (inserted by both)"
            return self._value(where, base, ours, theirs)

        def part(name: str, of: Callable[[Cell], _Value]) -> _Value:
            where = f"cell {cell_id} ({name})"
            return self._value(where, of(base), of(ours), of(theirs))

        result = part("outputs", lambda cell: (cell.outputs, cell.execution_count))
        return replace(
            ours,
            cell_type=part("type", lambda cell: cell.cell_type),
            source=part("source", lambda cell: cell.source),
            attachments=part("attachments", lambda cell: cell.attachments),
            outputs=result[0],
            execution_count=result[1],
            metadata=self.mapping(
                f"cell {cell_id} (metadata)", base.metadata, ours.metadata, theirs.metadata
            ),
        )

    def mapping(
        self,
        where: str,
        base: Mapping[str, Any],
        ours: Mapping[str, Any],
        theirs: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Metadata, merged by its keys."""
        keys = {**base, **ours, **theirs}
        merged = {
            key: self._value(where, *(each.get(key, _MISSING) for each in (base, ours, theirs)))
            for key in keys
        }
        return {key: value for key, value in merged.items() if value is not _MISSING}

    def order(
        self, base: Notebook, ours: Notebook, theirs: Notebook, there: Iterable[str]
    ) -> list[str]:
        """The order of the cells that are there: of those of before as whoever moved them has it,
        and each new one behind the cell that its side has it behind."""
        kept = set(there)
        known = {cell.id for cell in base.cells} & kept
        orders = [
            [cell.id for cell in each.cells if cell.id in known] for each in (base, ours, theirs)
        ]
        order: list[str] = list(self._value("the order of cells", *orders))
        behind: dict[str, list[str]] = {}
        placed = set(known)
        for side in (theirs, ours):  # of two new ones in the same place ours comes first
            last = ""
            for cell in side.cells:
                if cell.id in kept and cell.id not in placed:
                    behind.setdefault(last, []).insert(0, cell.id)
                    placed.add(cell.id)
                    last = cell.id
                elif cell.id in kept:
                    last = cell.id
        return list(_expanded(order, behind))

    def _value(self, where: str, base: _Value, ours: _Value, theirs: _Value) -> _Value:
        if theirs in (ours, base):
            return ours
        if ours == base:
            return theirs
        if where not in self.conflicts:
            self.conflicts.append(where)
        return ours


def _expanded(order: list[str], behind: Mapping[str, list[str]]) -> Iterable[str]:
    """An order with what stands behind each of its members, at any depth, and first behind none."""
    waiting = ["", *order][::-1]
    while waiting:
        name = waiting.pop()
        if name:
            yield name
        waiting += reversed(behind.get(name, []))


def _by_id(notebook: Notebook) -> dict[str, Cell]:
    return {cell.id: cell for cell in notebook.cells}


def _contradiction(conflicts: list[str]) -> Conflict:
    more = len(conflicts) - MAX_TOLD
    told = ", ".join(conflicts[:MAX_TOLD]) + (f" and {more} more" if more > 0 else "")
    return Conflict(
        f"The notebook was changed by somebody else meanwhile, and both changed: {told}.",
        remedy="Nothing was overwritten. Read it again and repeat the change.",
    )
