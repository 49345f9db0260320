"""The cells of one kernel: the running one, those that wait, and how they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from sandbox.errors import Conflict, QuotaExceeded, SandboxError
from sandbox.kernels.events import KernelEvents
from sandbox.kernels.execution import Execution
from sandbox.kernels.journaling import ProgressWriter
from sandbox.kernels.models import ExecutionStatus, KernelState
from sandbox.kernels.shared import SharedByKernels

MAX_WAITING = 64


class Cells:
    """A kernel's queue, of which one cell at a time runs; ``changed`` is called when one may begin
    or needs attention."""

    def __init__(
        self,
        kernel_id: str,
        around: SharedByKernels,
        events: KernelEvents,
        changed: Callable[[], None],
    ) -> None:
        self.kernel_id = kernel_id
        self.writer = ProgressWriter(around.journal, events, around.overruns)
        self.running: Execution | None = None
        self.count = 0
        """The kernel's number of the last cell that ended."""
        self.changed = changed
        self._waiting: deque[Execution] = deque()
        self._holds = 0
        """How many want no cell to begin."""
        self._around = around
        self._events = events

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Execution]:
        """The running cell and those that wait, in order."""
        if self.running is not None:
            yield self.running
        yield from self._waiting

    @property
    def next(self) -> Execution | None:
        """The cell that may begin next; None when there is none."""
        return self._waiting[0] if self._waiting and not self._holds else None

    @contextmanager
    def at_rest(self) -> Generator[None]:
        """Let no cell begin meanwhile.

        Raises:
            Conflict: One runs or waits.
        """
        if (busy := next(iter(self), None)) is not None:
            raise Conflict(
                f"The kernel {self.kernel_id} is busy with the execution {busy.execution_id}.",
                remedy="Call again when that has ended, or interrupt it first.",
            )
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self.changed()

    # --- the queue

    def put(self, execution: Execution, *, runs_at_once: bool) -> None:
        """Put a cell at the end of the queue; with ``runs_at_once`` nothing is before it, so that
        its first record can say that it runs.

        Raises:
            QuotaExceeded: Too many wait already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise QuotaExceeded(
                f"{MAX_WAITING} cells wait for the kernel {self.kernel_id} already.",
                remedy="Wait for them, or interrupt the kernel.",
            )
        if not runs_at_once or self.running or self._waiting:
            self._around.journal.started(execution.record)
        execution.events = self._events
        self._waiting.append(execution)
        self.changed()

    def adopt(self, execution: Execution) -> None:
        """Carry on the cell that the kernel runs already."""
        execution.events = self._events
        self.running = execution

    def begin_next(self, epoch: int) -> Execution | None:
        """Make the next cell the running one; None when none waits, or it could not be recorded."""
        if not self._waiting:
            return None
        execution = self.running = self._waiting.popleft()
        execution.begin(epoch, self._events.log.end)
        try:
            self._around.journal.started(execution.record)
        except SandboxError as exc:  # run unrecorded it could not be told from one never run
            self.end(execution, "lost", "kept", f"The cell was not run: {exc.message}")
            return None
        return execution

    def put_back(self, execution: Execution) -> None:
        """Let the running cell wait again: it has not reached the kernel."""
        execution.wait_again()
        self.running = None
        self._waiting.appendleft(execution)

    def withdraw(self, execution: Execution) -> bool:
        """Take a cell out of the queue; False when it does not wait there."""
        if execution not in self._waiting:
            return False
        self._waiting.remove(execution)
        self.end(execution, "interrupted", "kept", "It was cancelled before it ran.")
        return True

    # --- endings

    def conclude(self, running: Execution) -> None:
        """End the running cell as the kernel said."""
        running.conclude()
        self.count = running.snapshot().execution_count or self.count
        self._close(running)

    def end(
        self, execution: Execution, status: ExecutionStatus, state: KernelState, reason: str
    ) -> None:
        """End a cell."""
        execution.end(status, state, reason)
        self._close(execution)

    def end_overdue(self) -> None:
        """End the running cell because its kernel was restarted when its time was over."""
        if self.running is not None:
            self.running.end_timeout("restarted", "so the kernel was restarted.")
            self._close(self.running)

    def end_all(
        self,
        status: ExecutionStatus,
        state: KernelState,
        reason: str,
        fate: str,
        unrun_status: ExecutionStatus = "lost",
    ) -> None:
        """End the running cell as said, and those behind it as never run: the kernel's fate, such
        as ``was restarted``, says why."""
        if self.running is not None:
            self.end(self.running, status, state, reason)
        while self._waiting:
            unrun = f"The kernel {fate} before this cell ran; nothing of it was executed."
            self.end(self._waiting.popleft(), unrun_status, state, unrun)

    def lose(self, size_bytes: int, note: str) -> None:
        """Something of the running cell was lost on its way."""
        if self.running is not None:
            self.running.lose(size_bytes, note)
            self.writer.note(self.running)

    def _close(self, execution: Execution) -> None:
        if execution is self.running:
            self.running = None
        self.writer.finish(execution)
        self._around.recent.add(execution)
        self.changed()
