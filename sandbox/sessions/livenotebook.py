"""One notebook of a session that is open: its document, its file and its kernel."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from sandbox.collaboration.authors import Author
from sandbox.collaboration.contracts import CellRun, Change
from sandbox.collaboration.document import SharedDocument
from sandbox.collaboration.peers import Peer
from sandbox.errors import Conflict, FileError, InvalidRequest, LinkLost, NotFound, SandboxError
from sandbox.kernels.messages import new_id
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.models import CellRef, Notebook
from sandbox.sessions.cellruns import CellRuns, ended_elsewhere
from sandbox.sessions.notebookfile import NotebookFile, told
from sandbox.sessions.notebookjournal import NotebookRow
from sandbox.sessions.notebookparts import NotebookParts

DEBOUNCE_S = 0.7
LONGEST_UNSAVED_S = 3.0
"""Under constant change it is saved that often."""
LOOK_S = 2.0
"""How often its file is looked at while it is used."""
USED_S = 120.0
"""It counts as used so long after a caller did something with it."""
RETRY_S = 3.0
COST_FACTOR = 10.0
"""A save that takes a second is followed by none for ten, up to a bound."""
LONGEST_REST_S = 60.0
AGENT_S = 900.0
"""An agent that does nothing for so long is shown no more."""

logger = logging.getLogger(__name__)


class KernelChoice(Protocol):
    """Chooses the kernels of a session's notebooks."""

    async def __call__(self, notebook: LiveNotebook, /) -> str:
        """A kernel for a notebook that has none."""
        ...


class LiveNotebook:
    """One open notebook; made by ``SessionNotebooks``, which runs it."""

    def __init__(self, parts: NotebookParts, row: NotebookRow, choose: KernelChoice) -> None:
        self.path = row.path
        self.file_id = row.file_id
        self.kernel_id = row.kernel_id
        self.problem = self._files_problem = ""
        self.used_at = time.monotonic()
        self._was_open = row.is_open
        self._parts = parts
        self._choose = choose
        self._tasks: TaskGroup | None = None
        self._looked_at = 0.0
        self._seen_at: dict[str, float] = {}
        self._changed = anyio.Event()
        self._saving = anyio.Lock()
        self._choosing = anyio.Lock()
        self.document = SharedDocument(
            parts.table.updates(row.file_id), on_change=lambda: self._changed.set()
        )
        self._saved_version = -1
        """The document's version that the file has; -1 when that is not known."""
        self._beside_version = -1
        """The document's version that is kept beside the file."""
        self._failed_at: tuple[str, int] | None = None
        """The file's etag and the document's version that could not be saved."""
        self._rest_s = 0.0
        """How long it is not saved by itself after the last time, which took its time."""
        self._runs = CellRuns(
            self.document, row.file_id, parts.table, lambda: self._tell(self._files_problem)
        )
        self.file = NotebookFile(
            parts.files,
            row.path,
            parts.redactor,
            lambda etag, base: parts.table.set_base(row.file_id, etag, base),
            row.etag,
        )

    # --- its beginning and end

    async def load(self) -> None:
        """Read what the journal and the file have of it.

        Raises:
            FileError: There is no such file, or it is none that can be read.
            InvalidRequest: It is no notebook.
        """
        if self.document.is_empty:
            await self.document.fill(await self.file.read())
            self.file.keep()
            self._saved_version = self.document.version
            self.document.tell_state(path=self.path)
            return
        await self.document.warm()
        try:
            await self.file.remember(self._parts.table.base(self.file_id))
            if await self.file.is_changed():
                await self._reconcile()
        except (Conflict, FileError, InvalidRequest) as exc:
            if not self._was_open and not isinstance(exc, Conflict):
                raise
            await self._fail(exc)  # what the document has is nowhere else
        if self.file.is_as(self.document.read()):
            self._saved_version = self.document.version

    async def look(self) -> None:
        """Take in what somebody made of its file, unless that was looked at just now."""
        self.used_at = now = time.monotonic()
        if now - self._looked_at > LOOK_S / 4:
            with suppress(SandboxError):  # which is its problem then
                await self._keep_saved(is_asked=False)

    async def run(self) -> None:
        """Save it and look at its file, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._runs.follow_late, self._parts.kernels.late_listeners)
            self._resume()
            while True:
                await self._wait_changed()
                self._forget_idle_agents()
                try:
                    await self._keep_saved(is_asked=False)
                except SandboxError:
                    self._rest_s = max(self._rest_s, RETRY_S)
                await anyio.sleep(self._rest_s)

    def stop(self) -> None:
        """Let go of it; what it has is in the journal."""
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
        self.document.close()

    @property
    def is_used(self) -> bool:
        """Whether somebody has it open, or a cell of it runs."""
        return bool(self.document.peers or self.document.presence.agents or self._runs)

    # --- for callers

    @property
    def people(self) -> Sequence[Author]:
        """Who has it open now."""
        peers = {peer.author.key: peer.author for peer in self.document.peers}
        agents = {agent.key: agent for agent in self.document.presence.agents}
        return tuple({**peers, **agents}.values())

    def read(self) -> Notebook:
        """The notebook as it is now."""
        self.used_at = time.monotonic()
        self._runs.settle()
        return self.document.read()

    async def edit(self, change: Change, author: Author) -> Edited:
        """Change it, at once for everybody."""
        self._use(author)
        self._runs.settle()
        return self.document.edit(change)

    async def execute(
        self,
        ref: CellRef,
        author: Author,
        *,
        timeout_s: float | None = None,
        source: str | None = None,
    ) -> CellRun:
        """Queue a code cell in the notebook's kernel, starting that if need be."""
        self._use(author)
        cell_id = self._runnable(ref, source)[1]
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidRequest("The timeout must be more than 0 seconds.")
        kernel_id = await self.use_kernel()
        index, cell_id, code = self._runnable(cell_id, source)  # others had their turn
        execution_id = new_id()
        table = self._parts.table
        table.run_started(self.file_id, cell_id, execution_id)
        try:
            execution = await self._parts.kernels.execute(
                code, kernel_id=kernel_id, timeout_s=timeout_s, execution_id=execution_id
            )
        except BaseException:
            table.run_ended(execution_id)
            raise
        self._runs.add(cell_id, execution)
        if self._tasks is not None:
            self._tasks.start_soon(self._runs.follow, execution)
        return CellRun(cell_id, index, execution)

    def join(self, author: Author, *, may_write: bool = True) -> Peer:
        """Let a peer in."""
        self.used_at = time.monotonic()
        peer = self.document.join(author, may_write=may_write)
        self._changed.set()  # so that its file is looked at
        return peer

    def leave(self, author: Author) -> None:
        """Show an agent no more."""
        self._seen_at.pop(author.key, None)
        self.document.presence.leave(author.key)

    async def use_kernel(self, kernel_id: str = "", *, restart: bool = False) -> str:
        """Have its cells run in a kernel, and say which."""
        kernels = self._parts.kernels
        async with self._choosing:
            there = {each.kernel_id for each in kernels.infos}
            if kernel_id:
                kernels.events(kernel_id)  # raises NotFound
                self._take_kernel(kernel_id)
            elif not self.kernel_id or self.kernel_id not in there:
                self._take_kernel(await self._choose(self))
                restart = False
            if restart:
                await kernels.restart(self.kernel_id)
            return self.kernel_id

    async def save(self) -> None:
        """Write it to its file now."""
        self.used_at = time.monotonic()
        await self._keep_saved(is_asked=True)

    async def save_changes(self) -> None:
        """Write it where there is something that its file has not, before it is let go of.

        Raises:
            Conflict: It cannot be: see ``problem``.
            FileError, InvalidRequest: As for :meth:`save`.
        """
        await self._keep_saved(is_asked=False)
        if self._failed_at is not None:
            raise Conflict(self.problem)

    # --- inside

    def _use(self, author: Author) -> None:
        self.used_at = time.monotonic()
        if author.is_agent:
            self._seen_at[author.key] = self.used_at
            self.document.presence.enter(author)

    def _forget_idle_agents(self) -> None:
        now = time.monotonic()
        for key in [key for key, at in self._seen_at.items() if now - at > AGENT_S]:
            del self._seen_at[key]
            self.document.presence.leave(key)

    def _runnable(self, ref: CellRef, source: str | None) -> tuple[int, str, str]:
        notebook = self.document.read()
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

    def _take_kernel(self, kernel_id: str) -> None:
        if kernel_id != self.kernel_id:
            self._parts.table.set_kernel(self.file_id, kernel_id)
            self.kernel_id = kernel_id

    def _resume(self) -> None:
        """Go on with the cells that an earlier controller ran."""
        for execution_id, cell_id in self._parts.table.runs(self.file_id):
            try:
                execution = self._parts.kernels.execution(execution_id)
            except NotFound:
                execution = ended_elsewhere(execution_id, self._parts.session_id)
            self._runs.add(cell_id, execution, is_new=False)
            if self._tasks is not None:
                self._tasks.start_soon(self._runs.follow, execution)

    # --- its file

    async def _wait_changed(self) -> None:
        """Wait until it should be saved or its file looked at."""
        is_used = self.is_used or time.monotonic() - self.used_at < USED_S
        with anyio.move_on_after(LOOK_S if is_used else None):
            await self._changed.wait()
        first = time.monotonic()
        while self._changed.is_set():
            self._changed = anyio.Event()
            with anyio.move_on_after(DEBOUNCE_S):
                await self._changed.wait()
            if time.monotonic() - first > LONGEST_UNSAVED_S:
                return

    async def _keep_saved(self, *, is_asked: bool) -> None:
        """Take in what its file has, then write what that has not."""
        async with self._saving:
            began = time.monotonic()
            try:
                is_changed = await self.file.is_changed()
                self._looked_at = began
                at = (self.file.found_etag, self.document.version)
                if at == self._failed_at and not is_asked:
                    return  # with the same end
                if is_changed:
                    await self._reconcile()
                is_new = self.document.version != self._saved_version
                if is_new or (is_asked and self.file.is_gone):
                    await self._write()
            except (Conflict, FileError, InvalidRequest) as exc:
                await self._fail(exc)
                self._failed_at = (self.file.found_etag, self.document.version)
                raise
            except LinkLost as exc:
                self._tell(told(exc, self.file, is_kept=False))
                raise
            finally:
                self._rest_s = min(COST_FACTOR * (time.monotonic() - began), LONGEST_REST_S)
            self._failed_at = None
            self._tell(
                f"The file {self.path!r} is gone; it is written again with the next change."
                if self.file.is_gone
                else ""
            )

    async def _write(self) -> None:
        version, notebook = self.document.version, self.read_settled()
        await self.file.write(notebook)
        self._saved_version = version
        self.document.tell_saved()

    def read_settled(self) -> Notebook:
        """The notebook as it is now, which is no use of it."""
        self._runs.settle()
        return self.document.read()

    async def _reconcile(self) -> None:
        """Take in what somebody else made of the file."""
        was_saved = self.document.version == self._saved_version

        def apply(merge: Callable[[Notebook], Notebook]) -> None:
            self.document.edit(lambda ours: Edited(merge(ours), (), ""))

        await self.file.merged(apply)
        if was_saved:
            self._saved_version = self.document.version

    async def _fail(self, error: SandboxError) -> None:
        version = self.document.version
        is_kept = version in (self._saved_version, self._beside_version)
        if not is_kept:
            try:
                await self.file.write_beside(self.read_settled())
                self._beside_version = version
                is_kept = True
            except SandboxError as exc:
                logger.info("notebook %s cannot be kept beside: %s", self.file_id, exc)
        is_beside = is_kept and version == self._beside_version
        self._tell(told(error, self.file, is_kept=is_beside))

    def _tell(self, problem: str) -> None:
        self._files_problem = problem
        self.problem = self._parts.redactor.text(f"{problem} {self._runs.problem}".strip())
        try:
            self.document.tell_state(problem=self.problem)
        except SandboxError as exc:
            logger.warning("notebook %s cannot tell its problem: %s", self.file_id, exc)
