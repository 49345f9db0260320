"""A notebook as a value: its cells and metadata, in the words of nbformat 4.5.

Operations answer a new value and leave theirs as it was. What is in metadata and outputs is plain
JSON; nobody may change it in place.

https://nbformat.readthedocs.io/en/latest/format_description.html
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from sandbox.errors import InvalidRequest, NotFound

CellType = Literal["code", "markdown", "raw"]
CELL_TYPES: tuple[CellType, ...] = ("code", "markdown", "raw")
MAX_CELLS = 10_000
MAX_SOURCE = 1024 * 1024
"""The characters of one cell that is given to be inserted or to replace another one."""
RAISES = "raises-exception"
"""The tag of a cell whose error does not end a run."""
SKIP = "skip-execution"
"""The tag of a cell that is not run."""

CellRef = int | str
"""A cell by its index from 0, negative ones from the end, or by its id."""
Json = Mapping[str, Any]

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell; what only code cells have is empty in others."""

    id: str
    cell_type: CellType
    source: str
    metadata: Json = field(default_factory=dict[str, Any])
    outputs: tuple[Json, ...] = ()
    execution_count: int | None = None
    attachments: Json | None = None
    """The files of a markdown or raw cell, by name; None where it has none."""

    @property
    def tags(self) -> frozenset[str]:
        """Its tags."""
        found = self.metadata.get("tags")
        tags = cast("list[Any]", found) if isinstance(found, list) else []
        return frozenset(tag for tag in tags if isinstance(tag, str))

    @property
    def title(self) -> str:
        """Its first line that is not blank."""
        return next((line.strip() for line in self.source.splitlines() if line.strip()), "")


@dataclass(frozen=True, slots=True)
class Notebook:
    """Cells in their order, each with an id of its own, and the notebook's metadata."""

    cells: tuple[Cell, ...] = ()
    metadata: Json = field(default_factory=dict[str, Any])

    def index(self, ref: CellRef) -> int:
        """Where a cell is.

        Raises:
            NotFound: There is no such cell, or no longer.
        """
        count = len(self.cells)
        if isinstance(ref, int):
            if -count <= ref < count:
                return ref % count
            there = f"cells 0 to {count - 1}" if count else "no cells"
            raise NotFound(f"There is no cell {ref}: the notebook has {there}.")
        for index, cell in enumerate(self.cells):
            if cell.id == ref:
                return index
        raise NotFound(
            f"There is no cell with the id {ref[:80]!r}; it may have been deleted since.",
            remedy="Read the notebook again: it shows the ids of its cells.",
        )

    def cell(self, ref: CellRef) -> Cell:
        """A cell.

        Raises:
            NotFound: There is no such cell.
        """
        return self.cells[self.index(ref)]

    def with_cell(self, index: int, cell: Cell) -> Notebook:
        """The same with another cell in a place."""
        return replace(self, cells=(*self.cells[:index], cell, *self.cells[index + 1 :]))


def kernel_of(notebook: Notebook) -> tuple[str, str]:
    """The name of the kernel that a notebook wants, and its language; empty where it says none."""
    spec, language = notebook.metadata.get("kernelspec"), notebook.metadata.get("language_info")
    name = _text(spec, "name")
    return name, _text(spec, "language") or _text(language, "name")


def _text(mapping: Any, key: str) -> str:
    found = cast("Json", mapping).get(key) if isinstance(mapping, Mapping) else None
    return found if isinstance(found, str) else ""


def is_cell_id(value: object) -> bool:
    """Whether a value can be the id of a cell."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def new_cell_id(notebook: Notebook) -> str:
    """An id that no cell of a notebook has."""
    taken = {cell.id for cell in notebook.cells}
    while (made := secrets.token_hex(4)) in taken:
        pass
    return made


def derived_id(cell_type: str, source: str, occurrence: int) -> str:
    """An id for a cell that has none: the same whenever the same notebook is read again.

    Args:
        occurrence: Which of the cells with this type and source it is, from 0.
    """
    text = f"{cell_type}\0{occurrence}\0{source}"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


def checked_source(source: str) -> str:
    """A source that can be a cell's.

    Raises:
        InvalidRequest: It is too long, or no text that can be written.
    """
    check_length(len(source))
    try:
        source.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise InvalidRequest("A cell holds what UTF-8 cannot express.") from exc
    return source


def check_length(length: int) -> None:
    """Refuse a source of so many characters.

    Raises:
        InvalidRequest: They are too many.
    """
    if length > MAX_SOURCE:
        raise InvalidRequest(f"A cell has at most {MAX_SOURCE:,} characters, not {length:,}.")
