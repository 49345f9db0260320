"""A notebook in a document that somebody else keeps: read and edited as values.

Who keeps it tells its peers of each change, saves it, and decides when it is over. What is in it
may have been put there by anybody, as in :mod:`sandbox.collaboration.document`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from pycrdt import Array, Doc, Map

from sandbox.collaboration.ycells import plain_value, read_cell
from sandbox.collaboration.yediting import change_cell, change_notebook
from sandbox.errors import InvalidRequest
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.models import MAX_CELLS, Cell, Notebook


class AttachedDocument:
    """The notebook in a document.

    Args:
        doc: A ``pycrdt.Doc`` in the schema of Jupyter's collaboration.
    """

    size_bytes = 0
    """What it takes is bounded by who keeps it."""

    def __init__(self, doc: Any) -> None:
        self.doc = cast("Doc[Any]", doc)
        self._ycells = cast("Array[Any]", self.doc.get("cells", type=Array))
        self._ymeta = cast("Map[Any]", self.doc.get("meta", type=Map))
        self._notebook: Notebook | None = None
        self._observed = [
            (each, each.observe_deep(self._changed)) for each in (self._ycells, self._ymeta)
        ]

    def close(self) -> None:
        """Observe it no more; harmless when done already."""
        for observed, subscription in self._observed:
            observed.unobserve(subscription)
        self._observed = []

    def read(self) -> Notebook:
        """The notebook as it is now.

        Raises:
            InvalidRequest: It has more cells than can be read.
        """
        if self._notebook is None:
            if len(self._ycells) > MAX_CELLS:
                raise InvalidRequest(f"The notebook has more than {MAX_CELLS:,} cells.")
            with self.doc.transaction():
                metadata = plain_value(self._ymeta.get("metadata"))
                cells = tuple(read_cell(each) for each in self._ycells)
            found = cast("dict[str, Any]", metadata) if isinstance(metadata, dict) else {}
            self._notebook = Notebook(cells, found)
        return self._notebook

    def edit(self, change: Callable[[Notebook], Edited]) -> Edited:
        """Change it as a pure function says.

        Raises:
            NotFound, InvalidRequest, QuotaExceeded: As the change raises; nothing was changed.
        """
        before = self.read()
        edited = change(before)
        if edited.notebook is not before:
            with self.doc.transaction():
                change_notebook(self._ycells, self._ymeta, before, edited.notebook)
        return edited

    def change_cell(
        self, cell_id: str, change: Callable[[Cell], Cell], execution_state: str = ""
    ) -> Cell | None:
        """Change one cell, and what JupyterLab shows of its execution; None where it is gone."""
        cells = self.read().cells
        index = next((at for at, cell in enumerate(cells) if cell.id == cell_id), None)
        if index is None:
            return None
        before = cells[index]
        after = change(before)
        with self.doc.transaction():
            ycell = self._ycells[index]
            change_cell(ycell, before, after)
            if execution_state and ycell.get("execution_state") != execution_state:
                ycell["execution_state"] = execution_state
        return after

    def _changed(self, _events: Any) -> None:
        self._notebook = None
