"""The cells of one kernel: the running one, those that wait, and what is said about them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from sandbox.errors import QuotaExceeded, SandboxError
from sandbox.kernels.execution import Execution
from sandbox.kernels.keeper import Keeper
from sandbox.kernels.log import KernelLog
from sandbox.kernels.messages import KernelMessage, Messages
from sandbox.kernels.models import ExecutionJournal, ExecutionStatus, KernelState
from sandbox.kernels.recent import Recent
from sandbox.policy.models import Limits

MAX_WAITING = 64

OomProbe = Callable[[], Awaitable[bool | None]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all kernels of a session share."""

    session_id: str
    limits: Limits
    journal: ExecutionJournal
    messages: Messages
    recent: Recent
    grace_s: float
    oom_probe: OomProbe | None


class Cells:
    """A kernel's queue, of which one cell at a time runs.

    Args:
        kernel_id: Whose.
        around: What the session's kernels share.
        log: The kernel's log.
        changed: Called when a cell may begin or needs attention.
    """

    def __init__(
        self, kernel_id: str, around: Surroundings, log: KernelLog, changed: Callable[[], None]
    ) -> None:
        self.keeper = Keeper(around.journal)
        self.running: Execution | None = None
        self.count = 0
        """The kernel's number of the last cell that ended."""
        self._waiting: deque[Execution] = deque()
        self._kernel_id = kernel_id
        self._around = around
        self._log = log
        self._changed = changed

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Execution]:
        """The running cell and those that wait, in order."""
        if self.running is not None:
            yield self.running
        yield from self._waiting

    # --- the queue

    def put(self, execution: Execution, *, runs_at_once: bool) -> None:
        """Put a cell at the end of the queue.

        Args:
            execution: The cell.
            runs_at_once: Whether nothing is before it, so that its first record can say that it
                runs.

        Raises:
            QuotaExceeded: Too many wait already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise QuotaExceeded(
                f"{MAX_WAITING} cells wait for the kernel {self._kernel_id} already.",
                remedy="Wait for them, or interrupt the kernel.",
            )
        if not runs_at_once or self.running or self._waiting:
            self._around.journal.started(execution.record)
        self._waiting.append(execution)
        self._changed()

    def begin_next(self, epoch: int) -> Execution | None:
        """Make the next cell the running one; None when none waits, or it could not be recorded."""
        if not self._waiting:
            return None
        execution = self.running = self._waiting.popleft()
        execution.begin(epoch, self._log.seq)
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

    def end_overdue(self, running: Execution) -> None:
        """End a cell whose kernel was restarted because its time was over."""
        running.end_timeout("restarted", "so the kernel was restarted.")
        self._close(running)

    def end_all(self, status: ExecutionStatus, state: KernelState, reason: str, fate: str) -> None:
        """End the running cell as said, and those behind it as never run.

        Args:
            status: Of the running cell.
            state: Of all.
            reason: Of the running cell's end.
            fate: What the kernel did, for the others: ``died``, ``was restarted``.
        """
        if self.running is not None:
            self.end(self.running, status, state, reason)
        while self._waiting:
            unrun = f"The kernel {fate} before this cell ran; nothing of it was executed."
            self.end(self._waiting.popleft(), "lost", state, unrun)

    def _close(self, execution: Execution) -> None:
        if execution is self.running:
            self.running = None
        self.keeper.finish(execution, self._log.seq)
        self._around.recent.add(execution)
        self._changed()

    # --- what the kernel says

    def take(self, message: KernelMessage) -> None:
        """Take a message that answers a cell, running or ended."""
        running = self.running
        if running is None or message.parent_id != running.execution_id:
            self._take_late(message)
            return
        if message.channel == "stdin":
            running.input_asked = message.msg_type == "input_request"
            self._changed()
        elif running.take(message):
            self.keeper.note(running)
        elif message.msg_type == "update_display_data":
            self._take_update(message)
        if running.is_complete:
            self.conclude(running)

    def lose(self, size_bytes: int, note: str) -> None:
        """Something of the running cell was lost on its way."""
        if self.running is not None:
            self.running.lose(size_bytes, note)
            self.keeper.note(self.running)

    def _take_late(self, message: KernelMessage) -> None:
        """A thread that a cell has started goes on writing after the cell's end."""
        execution = self._around.recent.get(message.parent_id)
        if execution is None or execution.record.kernel_id != self._kernel_id:
            return
        if message.channel == "iopub" and execution.take(message):
            self.keeper.note(execution)
            self._around.recent.add(execution)

    def _take_update(self, message: KernelMessage) -> None:
        """A cell draws anew what an earlier one has shown."""
        for execution in self._around.recent.of_kernel(self._kernel_id):
            if execution.update(message):
                self.keeper.note(execution)
