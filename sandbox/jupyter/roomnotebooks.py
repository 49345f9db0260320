"""A Jupyter Server's notebooks in its live rooms: what agents edit, JupyterLab shows at once."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup

from sandbox.collaboration.authors import Author
from sandbox.collaboration.contracts import CellRun, Change
from sandbox.collaboration.peers import Peer
from sandbox.errors import Conflict, FileError, InvalidRequest, QuotaExceeded
from sandbox.files.files import Files
from sandbox.jupyter.notebookkernels import NotebookKernels
from sandbox.jupyter.rooms import Room, Rooms
from sandbox.kernels.kernels import Kernels
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.ipynb import write_ipynb
from sandbox.notebooks.models import CellRef, Notebook, kernel_of
from sandbox.sessions.cellruns import CellRuns

MAX_OPEN = 32


class NoTable:
    """Notes of no run: a room does not outlive its server, and no kernel does either."""

    def run_ended(self, execution_id: str) -> None:
        """An execution is over."""


class RoomNotebook:
    """One open notebook; a ``LiveNotebook``."""

    def __init__(self, owner: RoomNotebooks, path: str, room: Room) -> None:
        self.path = path
        self.kernel_id = ""
        self.problem = ""
        self._owner = owner
        self._using = anyio.Lock()
        self._take(room)

    def _take(self, room: Room) -> None:
        self._room = room
        self._runs = CellRuns(room.document, room.file_id, NoTable())

    def move_to(self, room: Room) -> None:
        """Its room is another one now, as after a restart of it."""
        if room is not self._room:
            self._take(room)

    @property
    def file_id(self) -> str:
        """What names its room."""
        return self._room.file_id

    @property
    def people(self) -> Sequence[Author]:
        """Who has it open now."""
        return self._room.people

    @property
    def is_running(self) -> bool:
        """Whether a cell of it runs for us."""
        return bool(self._runs)

    def read(self) -> Notebook:
        """The notebook as it is now."""
        self._runs.settle()
        return self._room.document.read()

    async def edit(self, change: Change, author: Author) -> Edited:
        """Change it, at once for everybody."""
        self._room.enter(author)
        self._runs.settle()
        return self._room.document.edit(change)

    async def execute(
        self,
        ref: CellRef,
        author: Author,
        *,
        timeout_s: float | None = None,
        source: str | None = None,
    ) -> CellRun:
        """Queue a code cell in the notebook's kernel, starting that if need be."""
        self._room.enter(author)
        cell_id = self._runnable(ref, source)[1]
        kernel_id = await self.use_kernel()
        index, cell_id, code = self._runnable(cell_id, source)  # others had their turn
        execution = await self._owner.kernels.execute(
            code, kernel_id=kernel_id, timeout_s=timeout_s
        )
        self._runs.add(cell_id, execution)
        self._owner.start(self._runs.follow, execution)
        return CellRun(cell_id, index, execution)

    def _runnable(self, ref: CellRef, source: str | None) -> tuple[int, str, str]:
        notebook = self._room.document.read()
        index = notebook.index(ref)
        cell = notebook.cells[index]
        if cell.cell_type != "code":
            raise InvalidRequest(f"Cell {cell.id} is {cell.cell_type}, not code.")
        if source is not None and source != cell.source:
            raise Conflict(
                f"Cell {cell.id} says something else by now; nothing was run.",
                remedy="Read it again.",
            )
        return index, cell.id, cell.source

    def join(self, author: Author, *, may_write: bool = True) -> Peer:
        """Nobody comes in through us: the rooms are the server's own.

        Raises:
            InvalidRequest: Always.
        """
        raise InvalidRequest("The rooms of this notebook are the Jupyter Server's.")

    def leave(self, author: Author) -> None:
        """Show an agent no more."""
        self._room.show_no_more(author)

    async def use_kernel(self, kernel_id: str = "", *, restart: bool = False) -> str:
        """Have its cells run in a kernel, and say which."""
        own = self.path.lstrip("/")
        async with self._using:
            if kernel_id:
                self._owner.kernels.events(kernel_id)  # raises NotFound
                await self._owner.choice.use(own, kernel_id)
                self.kernel_id = kernel_id
                if restart:
                    await self._owner.kernels.restart(kernel_id)
                return kernel_id
            found = await self._owner.choice.of(own)
            if not found:
                named, language = kernel_of(self._room.document.read())
                found = await self._owner.choice.chosen(own, named, language)
                restart = False
            self.kernel_id = found
            if restart:
                await self._owner.kernels.restart(found)
            return found

    async def save(self) -> None:
        """Write it to its file now."""
        await self._room.save()


class RoomNotebooks:
    """The notebooks that agents use of those in rooms; :meth:`run` must be running."""

    def __init__(
        self, rooms: Rooms, kernels: Kernels, files: Files, choice: NotebookKernels
    ) -> None:
        self.kernels = kernels
        self.choice = choice
        self._rooms = rooms
        self._files = files
        self._opened: dict[str, RoomNotebook] = {}
        self._opening = anyio.Lock()
        self._tasks: TaskGroup | None = None

    async def run(self) -> None:
        """Show what cells write until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            await anyio.sleep_forever()

    def start(self, work: Any, *given: Any) -> None:
        """Run something beside."""
        if self._tasks is not None:
            self._tasks.start_soon(work, *given)

    @property
    def opened(self) -> Sequence[RoomNotebook]:
        """Those that are open, in the order of their opening."""
        return tuple(self._opened.values())

    async def open(self, path: str, *, create: bool = False) -> RoomNotebook:
        """Open the notebook at a path, or find it open already."""
        path = absolute(path)
        async with self._opening:
            found = self._opened.get(path)
            if found is None and len(self._opened) >= MAX_OPEN:
                raise QuotaExceeded(
                    f"{MAX_OPEN} notebooks are open, the most there can be.",
                    remedy="unuse_notebook closes one.",
                )
            await self._check(path, create=create)
            room = await self._rooms.enter(path.lstrip("/"))
            if found is None:
                found = self._opened[path] = RoomNotebook(self, path, room)
            found.move_to(room)
            return found

    async def close(self, path: str) -> None:
        """Save and close it where nothing of ours runs in it."""
        path = absolute(path)
        async with self._opening:
            found = self._opened.get(path)
            if found is not None and not found.is_running:
                await found.save()
                del self._opened[path]
                self._rooms.leave(path.lstrip("/"))

    async def _check(self, path: str, *, create: bool) -> None:
        """See that there is a notebook, as the ContentsManager lets it be seen."""
        if not path.endswith(".ipynb"):
            raise InvalidRequest("A notebook's path ends with .ipynb.")
        try:
            await self._files.stat(path)
        except FileError as exc:
            if exc.reason != "not_found" or not create:
                raise
            await self._files.write(path, write_ipynb(Notebook()))


def absolute(path: str) -> str:
    """A path from the root of the server's files."""
    if not path or "\0" in path:
        raise InvalidRequest("A notebook has a path.")
    return posixpath.normpath(posixpath.join("/", path))
