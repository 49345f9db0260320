"""The cells of a live notebook that run: their outputs come into the document by themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import anyio

from sandbox.collaboration.ycells import IDLE, RUNNING
from sandbox.errors import SandboxError
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.kernels.shared import LateListener
from sandbox.notebooks.models import Cell
from sandbox.sessions.cellresults import filled, stream

COALESCE_S = 0.03
"""Outputs that come within this time are shown together."""
BYTES_PER_S = 500_000
"""What a cell that floods may put into the document: then more is shown together."""
LONGEST_COALESCE_S = 1.0
ROOM_BYTES = 40 * 1024 * 1024
"""A document larger than this is given no more outputs but errors."""

MAX_ENDED = 1000
"""The cells that are known to show an execution that is over."""

logger = logging.getLogger(__name__)


class ShowingDocument(Protocol):
    """A document whose cells show outputs."""

    @property
    def size_bytes(self) -> int:
        """About what it takes."""
        ...

    def change_cell(
        self, cell_id: str, change: Callable[[Cell], Cell], execution_state: str = ""
    ) -> Cell | None:
        """Change one cell; None where it is gone."""
        ...


class RunTable(Protocol):
    """Where it is noted which cells run."""

    def run_ended(self, execution_id: str) -> None:
        """Note that an execution is over, with its outputs in the document."""
        ...


@dataclass(slots=True)
class _Run:
    cell_id: str
    execution: Execution
    refused: str = ""
    """Why the document takes no more of its outputs; each refusal makes it anew, which costs."""


class CellRuns:
    """What runs of one notebook. Of the executions of one cell only the last one is shown.

    Args:
        tell: Called when ``problem`` is another one.
    """

    def __init__(
        self,
        document: ShowingDocument,
        file_id: str,
        table: RunTable,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self.problem = ""
        """Why the outputs of a cell are not in the document, until those of one are again."""
        self._tell = tell
        self._document = document
        self._file_id = file_id
        self._table = table
        self._runs: dict[str, _Run] = {}
        self._ended: dict[str, str] = {}
        """By execution that is over, the cell that shows it."""
        self._late: dict[str, Execution] = {}
        """Of those, what has more to show, as threads of it go on."""
        self._has_late = anyio.Event()

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, cell_id: str, execution: Execution, *, is_new: bool = True) -> None:
        """Show in a cell what comes of an execution; a new one takes away what it showed before."""
        for other in [run for run in self._runs.values() if run.cell_id == cell_id]:
            self._forget(other)
        self._ended = {key: each for key, each in self._ended.items() if each != cell_id}
        run = self._runs[execution.execution_id] = _Run(cell_id, execution)
        try:
            self._document.change_cell(cell_id, _cleared if is_new else lambda cell: cell, RUNNING)
        except SandboxError as exc:  # it runs all the same, and its end is told
            self._refuse(run, exc)

    async def follow(self, execution: Execution) -> None:
        """Show what comes, as it comes, until it is over."""
        version, wait_s = -1, COALESCE_S
        while not execution.is_over and execution.execution_id in self._runs:
            version = await execution.changed(version)
            if not execution.is_over:
                await execution.wait(wait_s)
            if not execution.is_over:
                before = self._document.size_bytes
                self._show(execution.execution_id)
                wait_s = self._rest_s(before)
        self._show(execution.execution_id)

    async def follow_late(self, listeners: list[LateListener]) -> None:
        """Show what comes after the end of cells, until cancelled.

        Args:
            listeners: Those who are told which executions show something then.
        """
        listeners.append(self._note_late)
        try:
            while True:
                await self._has_late.wait()
                before = self._document.size_bytes
                self.settle()
                await anyio.sleep(self._rest_s(before))
        finally:
            listeners.remove(self._note_late)

    def settle(self) -> None:
        """Show what is over and not yet shown."""
        for execution_id in [key for key, run in self._runs.items() if run.execution.is_over]:
            self._show(execution_id)
        late, self._late, self._has_late = self._late, {}, anyio.Event()
        for execution in late.values():
            self._show_late(execution)

    def _note_late(self, execution: Execution) -> None:
        if execution.execution_id in self._ended:
            self._late[execution.execution_id] = execution
            self._has_late.set()

    def _rest_s(self, size_before: int) -> float:
        """How long to wait after what was shown since the document was so large."""
        grown_s = (self._document.size_bytes - size_before) / BYTES_PER_S
        return min(max(grown_s, COALESCE_S), LONGEST_COALESCE_S)

    def _show_late(self, execution: Execution) -> None:
        cell_id = self._ended.get(execution.execution_id)
        if cell_id is None or self._document.size_bytes >= ROOM_BYTES:
            return
        result = execution.snapshot()

        def shown(cell: Cell) -> Cell:
            if cell.execution_count != result.execution_count:
                return cell  # it was cleared, or shows what somebody else has run in it
            return replace(cell, outputs=filled(cell, execution.record, result).outputs)

        try:
            self._document.change_cell(cell_id, shown)
        except SandboxError as exc:
            logger.warning("late outputs of %s cannot be shown: %s", execution.execution_id, exc)

    def _show(self, execution_id: str) -> None:
        run = self._runs.get(execution_id)
        if run is None:
            return
        execution, is_over = run.execution, run.execution.is_over
        if run.refused:
            if is_over:
                self._show_refusal(run)
                self._forget(run)
            return
        result = execution.snapshot()
        has_room = self._document.size_bytes < ROOM_BYTES

        def shown(cell: Cell) -> Cell:
            done = filled(cell, execution.record, result, has_room=has_room)
            if is_over:
                return done
            return replace(cell, outputs=done.outputs, execution_count=done.execution_count)

        try:
            self._document.change_cell(run.cell_id, shown, IDLE if is_over else "")
        except SandboxError as exc:
            self._refuse(run, exc)
            if is_over:
                self._show_refusal(run)
        else:
            if is_over:
                self._say("")
        if is_over:
            self._forget(run)
            self._keep_ended(run)

    def _refuse(self, run: _Run, error: SandboxError) -> None:
        """Give the document no more of a cell that it cannot keep."""
        execution_id = run.execution.execution_id
        logger.warning("the outputs of %s cannot be shown: %s", execution_id, error)
        run.refused = str(error)
        self._say(f"Outputs of cell {run.cell_id} are not in the notebook: {error}")

    def _show_refusal(self, run: _Run) -> None:
        """End a cell with the reason instead of its outputs, which a full journal still takes."""
        result = run.execution.snapshot()
        ended = f" It ended as {result.status}."
        if result.error is not None:
            ended = f" It raised {result.error.name}: {result.error.value[:300]}"
        note = stream("stderr", f"[outputs are left out: {run.refused[:300]}{ended}]\n")

        def shown(cell: Cell) -> Cell:
            outputs = (*cell.outputs, note)
            return replace(cell, outputs=outputs, execution_count=result.execution_count)

        try:
            self._document.change_cell(run.cell_id, shown, IDLE)
        except SandboxError as exc:
            logger.warning("cell %s cannot say what it lacks: %s", run.cell_id, exc)

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._tell()

    def _keep_ended(self, run: _Run) -> None:
        self._ended[run.execution.execution_id] = run.cell_id
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def _forget(self, run: _Run) -> None:
        self._runs.pop(run.execution.execution_id, None)
        try:
            self._table.run_ended(run.execution.execution_id)
        except SandboxError as exc:
            logger.warning("the journal cannot take the end of a run: %s", exc)


def ended_elsewhere(execution_id: str, session_id: str) -> Execution:
    """An execution of an earlier controller of which nothing is known any more."""
    return Execution.ended(
        ExecutionResult(
            execution_id=execution_id,
            session_id=session_id,
            kernel_id="",
            status="lost",
            state="kept",
            reason="What came of it is not known any more.",
        )
    )


def _cleared(cell: Cell) -> Cell:
    metadata = {name: value for name, value in cell.metadata.items() if name != "execution"}
    return replace(cell, outputs=(), execution_count=None, metadata=metadata)
