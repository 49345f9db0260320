"""Live notebooks in memory: the contract of ``sandbox.collaboration.contracts`` without a sandbox.

Nothing is executed: a cell shows what the ``answers`` given to :class:`FakeNotebooks` say.
"""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sandbox.collaboration.contracts import Author, CellRun, Change
from sandbox.collaboration.peers import Peer
from sandbox.errors import Conflict, FileError, InvalidRequest, NotFound, QuotaExceeded
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionError, ExecutionResult
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.ipynb import read_ipynb, write_ipynb
from sandbox.notebooks.models import CellRef, Notebook

WORKSPACE = "/workspace"
Output = Mapping[str, Any]
Answers = Callable[[str], Sequence[Output]]


def no_outputs(_source: str) -> Sequence[Output]:
    """What cells show when nobody says more."""
    return ()


def _error(output: Output) -> ExecutionError:
    return ExecutionError(
        name=output["ename"], value=output["evalue"], traceback=output["traceback"]
    )


class FakeNotebook:
    """One open notebook."""

    def __init__(self, owner: FakeNotebooks, path: str, notebook: Notebook) -> None:
        self._owner = owner
        self._notebook = notebook
        self.path = path
        self.file_id = secrets.token_hex(8)
        self.kernel_id = ""
        self.problem = ""
        self.people: list[Author] = []
        """Whom a test puts there."""
        self._count = 0

    def read(self) -> Notebook:
        """The notebook as it is now."""
        return self._notebook

    async def edit(self, change: Change, author: Author) -> Edited:
        """Change it."""
        edited = change(self._notebook)
        self._notebook = edited.notebook
        self.people += [] if author in self.people else [author]
        return edited

    async def execute(
        self,
        ref: CellRef,
        author: Author,
        *,
        timeout_s: float | None = None,
        source: str | None = None,
    ) -> CellRun:
        """Have a cell show what the answers say."""
        index = self._notebook.index(ref)
        cell = self._notebook.cells[index]
        if cell.cell_type != "code":
            raise InvalidRequest(f"Cell {cell.id} is {cell.cell_type}, not code.")
        if source is not None and source != cell.source:
            raise Conflict(f"Cell {cell.id} was changed meanwhile; it was not run.")
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidRequest("The timeout must be more than 0 seconds.")
        kernel_id = await self.use_kernel()
        self._count += 1
        outputs = [dict(each) for each in self._owner.answers(cell.source)]
        error = next((each for each in outputs if each["output_type"] == "error"), None)
        result = ExecutionResult(
            execution_id=secrets.token_hex(8),
            session_id="fake",
            kernel_id=kernel_id,
            status="error" if error else "ok",
            state="kept",
            execution_count=self._count,
            outputs=outputs,
            error=_error(error) if error else None,
        )
        done = replace(cell, outputs=tuple(outputs), execution_count=self._count)
        self._notebook = self._notebook.with_cell(index, done)
        return CellRun(cell.id, index, Execution.ended(result))

    async def use_kernel(self, kernel_id: str = "", *, restart: bool = False) -> str:
        """Use one of the fake's kernels; there is always the default one."""
        if kernel_id and kernel_id not in self._owner.kernel_ids:
            raise NotFound(
                f"There is no kernel {kernel_id!r:.80}.", remedy="List or start kernels."
            )
        self.kernel_id = kernel_id or self.kernel_id or self._owner.kernel_ids[0]
        self._count = 0 if restart else self._count
        return self.kernel_id

    def join(self, author: Author, *, may_write: bool = True) -> Peer:
        """The fake has no peers: tests of rooms take a document."""
        raise QuotaExceeded(f"{author.name} cannot join a fake, whether it may write: {may_write}.")

    def leave(self, author: Author) -> None:
        """Show an agent no more."""
        self.people = [each for each in self.people if each.key != author.key]

    async def save(self) -> None:
        """Write it to its file."""
        self._owner.files[self.path] = write_ipynb(self._notebook)


class FakeNotebooks:
    """The notebooks of one session.

    Args:
        files: The bytes of what there is, by absolute path; a saved notebook is found there.
        answers: What a source shows.
        kernel_ids: The kernels that there are; the first runs what names none.
    """

    def __init__(
        self,
        files: dict[str, bytes] | None = None,
        *,
        answers: Answers = no_outputs,
        kernel_ids: Sequence[str] = ("k-default",),
    ) -> None:
        self.files = {} if files is None else files
        self.answers = answers
        self.kernel_ids = kernel_ids
        self._opened: dict[str, FakeNotebook] = {}

    @property
    def opened(self) -> Sequence[FakeNotebook]:
        """Those that are open."""
        return tuple(self._opened.values())

    async def open(self, path: str, *, create: bool = False) -> FakeNotebook:
        """Open a notebook, or find it open already."""
        path = posixpath.normpath(posixpath.join(WORKSPACE, path))
        if (found := self._opened.get(path)) is not None:
            return found
        if path not in self.files and not create:
            raise FileError("not_found", f"There is no {path!r}.")
        data = self.files.setdefault(path, write_ipynb(Notebook()))
        notebook = FakeNotebook(self, path, read_ipynb(data).notebook)
        self._opened[path] = notebook
        return notebook

    async def open_by_id(self, file_id: str) -> FakeNotebook:
        """The open notebook of that id."""
        for notebook in self.opened:
            if notebook.file_id == file_id:
                return notebook
        raise NotFound("There is no such notebook.")

    async def close(self, path: str) -> None:
        """Save and close it."""
        path = posixpath.normpath(posixpath.join(WORKSPACE, path))
        if (found := self._opened.get(path)) is not None:
            await found.save()
            del self._opened[path]
