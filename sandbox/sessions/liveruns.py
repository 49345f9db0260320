"""Running all cells of a live notebook: the rules of ``notebookrun`` over a document that others
edit meanwhile.

Which cells are run, and in which order, is as it was when the run began; what each says is as it is
when its turn comes. A run goes on whether or not anybody waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup

from sandbox.errors import Conflict, InfrastructureError, NotFound, SandboxError, SessionLost
from sandbox.kernels.models import ExecutionResult
from sandbox.notebooks.editing import Edited, clear
from sandbox.notebooks.models import Notebook
from sandbox.notebooks.runrules import EXITED, RunOutcome, RunStatus, allows_errors, is_run
from sandbox.sessions.cellresults import reason_of

if TYPE_CHECKING:  # it takes a while to load, and most sessions open no notebook
    from sandbox.collaboration.authors import Author
    from sandbox.collaboration.contracts import CellRun, LiveNotebook

MAX_ENDED = 32
"""The runs of one session whose end somebody is still to be told."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run goes.

    Args:
        timeout_s: How long each cell may run, in seconds; the policy's limit when None.
        allow_errors: Go on after any cell's error.
        agreed: The cells that a person agreed to, by id, with what each said; all when None.
    """

    timeout_s: float | None = None
    allow_errors: bool = False
    agreed: Mapping[str, str] | None = None


class LiveRun:
    """One run of a live notebook."""

    def __init__(self, live: LiveNotebook, author: Author, options: RunOptions) -> None:
        self._live = live
        self._author = author
        self._options = options
        self.path = live.path
        self.done = 0
        """The cells that were run, or were there no more."""
        self.total = 0
        self.skipped = 0
        """The cells that were deleted before their turn came."""
        self.latest: CellRun | None = None
        """The cell that runs, or ran last; None when none did."""
        self.outcome: RunOutcome | None = None
        """How it ended; None as long as it goes on."""
        self.failure: SandboxError | None = None
        """Why a cell could not be run at all."""
        self.awaited_by: set[str] = set()
        """The keys of the callers who were told that it goes on, and not yet how it ended."""
        self._sources: dict[str, str] = {}
        self._is_stopped = False
        self._moved = anyio.Event()

    async def interrupt(self) -> None:
        """Let the running cell be interrupted, and no other one run."""
        self._is_stopped = True
        if self.latest is not None:
            await self.latest.execution.cancel()

    async def wait_moved(self, latest: CellRun | None) -> None:
        """Wait until another cell than this one runs, or it is over."""
        while self.outcome is None and self.latest is latest:
            await self._moved.wait()

    def is_of(self, notebook: Notebook) -> bool:
        """Whether a notebook still has the code that it ran, and no other."""
        return self._sources == _sources(notebook)

    def snapshot(self) -> ExecutionResult | None:
        """What the latest cell did, with how the run ended for its status; None when none ran."""
        if self.latest is None:
            return None
        result = self.latest.execution.snapshot()
        if self.outcome is None:
            return result.model_copy(update={"status": "running"})
        status, reason = self.outcome.status, result.reason
        if status not in ("ok", "error"):
            reason = reason or self.outcome.reason
        return result.model_copy(update={"status": status, "reason": reason})

    async def run(self) -> None:
        """Run it to its end, or to what ends it."""
        outcome = RunOutcome("lost", 0, 0, reason="The session ended.")
        try:
            outcome = await self._run()
        except SandboxError as exc:
            self.failure = exc
            status: RunStatus = "died" if isinstance(exc, Conflict) else "lost"
            outcome = RunOutcome(status, self.done, self.total, reason=str(exc))
        except Exception:  # the outermost edge: the session's other work goes on
            logger.exception("a run of a notebook")
            self.failure = InfrastructureError("The run failed because of a defect of the server.")
            outcome = RunOutcome("lost", self.done, self.total, reason=str(self.failure))
        finally:
            self.outcome = outcome
            self._move(self.latest)

    async def _run(self) -> RunOutcome:
        edited = await self._live.edit(_begun, self._author)
        before, cell_ids = edited.notebook, edited.cell_ids
        self._sources = _sources(before)
        self.total, errors = len(cell_ids), 0
        allow = self._options.allow_errors or allows_errors(before)
        for cell_id in cell_ids:
            if self._is_stopped:
                return self._ended("interrupted", errors, "It was interrupted.")
            try:
                latest = await self._execute(cell_id)
            except NotFound:
                if self._has(cell_id):  # then it is the kernel that is not there
                    raise
                self.skipped += 1
                self.done += 1
                continue
            result = await latest.execution.wait(None)
            self.done += 1
            if result.status == "error" and (allow or self._allows(cell_id)):
                errors += 1
            elif result.status != "ok":
                status = "lost" if result.status == "running" else result.status
                return self._ended(status, errors, reason_of(result))
            elif latest.execution.has_exited:
                return self._ended("ok", errors, EXITED)
        return self._ended("ok", errors)

    async def _execute(self, cell_id: str) -> CellRun:
        source, agreed = None, self._options.agreed
        if agreed is not None:
            if cell_id not in agreed:
                raise Conflict("A cell was added since a person agreed to the run; it was ended.")
            source = agreed[cell_id]
        latest = await self._live.execute(
            cell_id, self._author, timeout_s=self._options.timeout_s, source=source
        )
        self._move(latest)
        if self._is_stopped:  # asked for while it was being queued
            await latest.execution.cancel()
        return latest

    def _move(self, latest: CellRun | None) -> None:
        self.latest = latest
        self._moved.set()
        self._moved = anyio.Event()

    def _allows(self, cell_id: str) -> bool:
        """Whether a cell that is still there says that its errors do not end the run."""
        return any(c.id == cell_id and allows_errors(c) for c in self._live.read().cells)

    def _has(self, cell_id: str) -> bool:
        return any(cell.id == cell_id for cell in self._live.read().cells)

    def _ended(self, status: RunStatus, errors: int, reason: str = "") -> RunOutcome:
        return RunOutcome(status, self.done, self.total, errors, reason=reason)


class LiveRuns:
    """The runs of one session's notebooks, one of each at a time."""

    def __init__(self) -> None:
        self._tasks: TaskGroup | None = None
        self._runs: dict[str, LiveRun] = {}
        self._ended: dict[str, LiveRun] = {}

    async def serve(self) -> None:
        """Let runs go on, until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await anyio.sleep_forever()

    def going_on(self, path: str) -> LiveRun | None:
        """The run of the notebook at a path that is not over; None when there is none."""
        found = self._runs.get(path)
        return found if found is not None and found.outcome is None else None

    def awaited(self, live: LiveNotebook, key: str) -> LiveRun | None:
        """The run of a notebook that is over, where this caller was told that it goes on; None when
        there is none, or the notebook has other code by now.

        The notebook may have been closed and opened again since.
        """
        found = self._ended.get(live.path)
        if found is None or key not in found.awaited_by or not found.is_of(live.read()):
            return None
        return found

    def begin(self, live: LiveNotebook, author: Author, options: RunOptions) -> LiveRun:
        """Run all cells of a notebook.

        Raises:
            Conflict: They are being run.
            SessionLost: The session does not live.
        """
        if self.going_on(live.path) is not None:
            raise Conflict("All cells of this notebook are being run already.")
        if self._tasks is None:
            raise SessionLost("The session is not open yet, or no longer.")
        run = LiveRun(live, author, options)
        self._ended.pop(live.path, None)
        self._runs[live.path] = run
        self._tasks.start_soon(self._run, run)
        return run

    async def _run(self, run: LiveRun) -> None:
        try:
            await run.run()
        finally:
            self._runs.pop(run.path, None)
            if run.awaited_by:
                self._ended[run.path] = run
            while len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]


def _sources(notebook: Notebook) -> dict[str, str]:
    return {cell.id: cell.source for cell in notebook.cells if is_run(cell)}


def _begun(notebook: Notebook) -> Edited:
    """The notebook without what an earlier run showed in the cells that are run now."""
    return clear(notebook, [at for at, cell in enumerate(notebook.cells) if is_run(cell)])
