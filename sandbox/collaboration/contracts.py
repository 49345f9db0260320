"""What a front sees of the notebooks of a session: opened once, shared by everybody in it.

A :class:`LiveNotebook` is one document however many callers, rooms and people have it open. An edit
is a pure function of the notebook as it is at that moment (``sandbox.notebooks.editing``), so two
edits at once never overwrite each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sandbox.collaboration.authors import Author
from sandbox.collaboration.peers import Peer
from sandbox.kernels.execution import Execution
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.models import CellRef, Notebook

Change = Callable[[Notebook], Edited]
"""What an edit does, without a look at anything but the notebook."""


@dataclass(frozen=True, slots=True)
class CellRun:
    """A cell that was handed to the notebook's kernel; its outputs reach the document by
    themselves, whether or not anybody waits."""

    cell_id: str
    index: int
    execution: Execution


class LiveNotebook(Protocol):
    """One open notebook."""

    @property
    def path(self) -> str:
        """Where it is in the workspace, absolute."""
        ...

    @property
    def file_id(self) -> str:
        """Names the document in the URL of its room: ``json:notebook:<file_id>``."""
        ...

    @property
    def kernel_id(self) -> str:
        """The kernel that runs its cells; empty before there is one."""
        ...

    @property
    def problem(self) -> str:
        """What stands between it and its file, in words; empty when nothing does."""
        ...

    @property
    def people(self) -> Sequence[Author]:
        """Who has it open now."""
        ...

    def read(self) -> Notebook:
        """The notebook as it is now."""
        ...

    async def edit(self, change: Change, author: Author) -> Edited:
        """Change it, at once for everybody.

        Raises:
            NotFound, InvalidRequest, QuotaExceeded: As the change raises; nothing was changed.
        """
        ...

    async def execute(
        self,
        ref: CellRef,
        author: Author,
        *,
        timeout_s: float | None = None,
        source: str | None = None,
    ) -> CellRun:
        """Queue a code cell in the notebook's kernel, starting that if need be.

        Args:
            source: What a person agreed to run; whatever the cell says when None.

        Raises:
            NotFound: There is no such cell.
            InvalidRequest: It is no code cell.
            Conflict: It says something else by now than ``source``; nothing ran.
        """
        ...

    def join(self, author: Author, *, may_write: bool = True) -> Peer:
        """Let a peer in, until it leaves or is cut off: see ``sandbox.collaboration.peers``.

        Raises:
            QuotaExceeded: There are as many as may be.
        """
        ...

    def leave(self, author: Author) -> None:
        """Show an agent no more among those who have it open; harmless when it is not shown."""
        ...

    async def use_kernel(self, kernel_id: str = "", *, restart: bool = False) -> str:
        """Have its cells run in a kernel, and say which: in that one, else in its own, which is
        started if need be, or restarted.

        Raises:
            NotFound: The session has no such kernel.
        """
        ...

    async def save(self) -> None:
        """Write it to its file now.

        Raises:
            Conflict: The file was changed meanwhile in a way that contradicts; nothing was written.
            FileError: It cannot be written.
        """
        ...


class LiveNotebooks(Protocol):
    """The notebooks of one session."""

    @property
    def opened(self) -> Sequence[LiveNotebook]:
        """Those that are open, in the order of their opening."""
        ...

    async def open(self, path: str, *, create: bool = False) -> LiveNotebook:
        """Open the notebook at a path, or find it open already.

        Args:
            create: Write an empty one first where there is no file; one that is there stays.

        Raises:
            FileError: There is no such file, or it is none that can be read.
            InvalidRequest: It is no notebook.
        """
        ...

    async def open_by_id(self, file_id: str) -> LiveNotebook:
        """Open the notebook whose room has this id, one that was open before too.

        Raises:
            NotFound: The session has none.
            FileError, InvalidRequest: As for its path.
        """
        ...

    async def close(self, path: str) -> None:
        """Save and close it where nobody has it open any more; harmless where it is not open.

        Raises:
            Conflict, FileError, InvalidRequest: It cannot be saved, and stays open.
        """
        ...
