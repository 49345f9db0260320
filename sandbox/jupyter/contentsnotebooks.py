"""A Jupyter Server's notebooks where it has no live rooms: shared by agents, saved as contents.

What others make of a file meanwhile is merged, as in a sandbox. Nothing is kept beyond the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from sandbox.files.files import Files
from sandbox.jupyter.notebookkernels import NotebookKernels
from sandbox.kernels.kernels import Kernels
from sandbox.notebooks.models import kernel_of
from sandbox.outputs.redaction import Redactor
from sandbox.sessions.livenotebook import LiveNotebook
from sandbox.sessions.livenotebooks import SessionNotebooks
from sandbox.sessions.notebookjournal import NotebookRow, NotebookTable


class MemoryUpdates:
    """The updates of one notebook; an ``UpdateStore``."""

    def __init__(self) -> None:
        self._updates: list[bytes] = []

    def load(self) -> Sequence[bytes]:
        """All of them."""
        return tuple(self._updates)

    def append(self, update: bytes) -> None:
        """Keep one more."""
        self._updates.append(update)

    def replace(self, update: bytes) -> None:
        """Keep this one instead of all."""
        self._updates = [update]


class MemoryTable:
    """What a ``NotebookTable`` keeps, in memory."""

    def __init__(self) -> None:
        self._rows: dict[str, NotebookRow] = {}
        self._bases: dict[str, bytes] = {}
        self._updates: dict[str, MemoryUpdates] = {}

    def rows(self, session_id: str) -> list[NotebookRow]:
        """The notebooks that were ever open."""
        del session_id
        return list(self._rows.values())

    def opened(self, session_id: str, row: NotebookRow) -> None:
        """Note one that is opened for the first time."""
        del session_id
        self._rows[row.file_id] = row

    def forget(self, file_id: str) -> None:
        """Forget one."""
        for kept in (self._rows, self._bases, self._updates):
            kept.pop(file_id, None)

    def set_open(self, file_id: str, *, is_open: bool) -> None:
        """Note whether it is open; what is not is in its file, and forgotten."""
        if is_open:
            self._rows[file_id] = replace(self._rows[file_id], is_open=True)
        else:
            self.forget(file_id)

    def set_kernel(self, file_id: str, kernel_id: str) -> None:
        """Note which kernel runs it."""
        self._rows[file_id] = replace(self._rows[file_id], kernel_id=kernel_id)

    def set_base(self, file_id: str, etag: str, base: bytes) -> None:
        """Note what its file has."""
        self._rows[file_id] = replace(self._rows[file_id], etag=etag)
        self._bases[file_id] = base

    def base(self, file_id: str) -> bytes | None:
        """What its file had last."""
        return self._bases.get(file_id)

    def run_started(self, file_id: str, cell_id: str, execution_id: str) -> None:
        """Nothing is noted of a run: its kernel does not outlive the server."""

    def run_ended(self, execution_id: str) -> None:
        """See :meth:`run_started`."""

    def runs(self, file_id: str) -> list[tuple[str, str]]:
        """See :meth:`run_started`."""
        del file_id
        return []

    def updates(self, file_id: str) -> MemoryUpdates:
        """The updates of one."""
        return self._updates.setdefault(file_id, MemoryUpdates())


class ContentsNotebooks(SessionNotebooks):
    """The notebooks of a Jupyter Server, in the kernels of the server's sessions."""

    def __init__(
        self, session_id: str, kernels: Kernels, files: Files, choice: NotebookKernels
    ) -> None:
        table = cast("NotebookTable", MemoryTable())
        super().__init__(session_id, kernels, files, table, Redactor(), root="/")
        self._choice = choice

    async def _chosen(self, notebook: LiveNotebook) -> str:
        named, language = kernel_of(notebook.read_settled())
        return await self._choice.chosen(notebook.path.lstrip("/"), named, language)
