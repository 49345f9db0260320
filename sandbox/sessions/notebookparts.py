"""What the live notebooks of one session share."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.files.files import Files
from sandbox.kernels.kernels import Kernels
from sandbox.outputs.redaction import Redactor
from sandbox.sessions.notebookjournal import NotebookTable


@dataclass(frozen=True, slots=True)
class NotebookParts:
    """What the notebooks of one session share."""

    session_id: str
    kernels: Kernels
    files: Files
    table: NotebookTable
    redactor: Redactor
