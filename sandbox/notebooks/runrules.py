"""The rules by which all cells of a notebook are run, as users of nbclient know them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sandbox.notebooks.models import RAISES, SKIP, Cell, Notebook

ALLOW_ERRORS = "allow_errors"
"""In the metadata of a notebook or a cell: errors do not end the run."""
EXITED = "It called exit(), which ends the run as a success; no cell after it was run."
RunStatus = Literal["ok", "error", "interrupted", "timeout", "died", "lost"]


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended."""

    status: RunStatus
    ran: int
    """The cells that were run, the last one included."""
    total: int
    """The cells that were to be run."""
    errors: int = 0
    """The errors that were allowed."""
    index: int | None = None
    """The cell that ended it; None when none did."""
    reason: str = ""
    """Why, in words."""


def is_run(cell: Cell) -> bool:
    """Whether a cell is run when all are."""
    return cell.cell_type == "code" and bool(cell.source.strip()) and SKIP not in cell.tags


def allows_errors(of: Notebook | Cell) -> bool:
    """Whether a notebook, or a cell of one, says that its errors do not end a run."""
    is_tagged = isinstance(of, Cell) and RAISES in of.tags
    return is_tagged or of.metadata.get(ALLOW_ERRORS) is True
