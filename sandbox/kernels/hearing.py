"""What a kernel says: whom each message concerns, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sandbox.errors import TooMuchWork
from sandbox.kernels.answers import processes_of, size_of
from sandbox.kernels.cells import Cells
from sandbox.kernels.execution import Execution
from sandbox.kernels.messages import SET_ASIDE, KernelMessage, unsent_error
from sandbox.kernels.questions import EndProbe, Questions
from sandbox.kernels.shared import SharedByKernels


class Speaker(Protocol):
    """The kernel that speaks."""

    @property
    def epoch(self) -> int:
        """Of its present process; what earlier ones said is of no concern."""
        ...

    def exited(self, event: Mapping[str, Any]) -> None:
        """Its process has ended."""
        ...

    def answers(self) -> None:
        """It has answered a probe, so it is ready."""
        ...

    def doubt(self, running: Execution) -> None:
        """What ends the running cell may be lost: find out."""
        ...


class Hearing:
    """Hands each message to the question or the cell that it answers."""

    def __init__(
        self, kernel: Speaker, cells: Cells, questions: Questions, around: SharedByKernels
    ) -> None:
        self._kernel = kernel
        self._cells = cells
        self._questions = questions
        self._recent = around.recent
        self._overruns = around.overruns

    def take(self, message: KernelMessage) -> None:
        """Take the next message."""
        if message.channel == "event":
            self._take_event(message)
        elif message.epoch != self._kernel.epoch:
            return
        elif not self._questions.take(message):
            self._take_for_cell(message)
        elif (probe := self._questions.probe) is not None and probe.is_answered:
            self._questions.probe = None
            self._kernel.answers()
            self._take_answer(probe)

    # --- events

    def _take_event(self, message: KernelMessage) -> None:
        event, running = message.content, self._cells.running
        if message.msg_type == "exited" and message.epoch == self._kernel.epoch:
            self._kernel.exited(event)
        if running is None:
            return
        match message.msg_type:
            case "dropped":
                self._lose(running, event, "Output was lost while nobody could read it.")
            case "ended":
                self._cells.lose(0, f"{processes_of(event)} that it had started were ended.")
            case "oversize" if running.execution_id == message.parent_id:
                self._lose(running, event, "A message was too large to be sent.")
                if event.get("msg_type") == "error":
                    self._take_for_cell(unsent_error(message))
            case _ if message.msg_type == SET_ASIDE:  # it may have been anything
                self._lose(running, event, "A message took the controller too long to read.")
            case _:
                pass

    def _lose(self, running: Execution, event: Mapping[str, Any], note: str) -> None:
        self._cells.lose(size_of(event), note)
        self._kernel.doubt(running)

    def _take_answer(self, probe: EndProbe) -> None:
        """All that was asked before the probe is done."""
        running = self._cells.running
        if running is None or running is not probe.execution or running.is_overdue:
            return
        if running.was_seen or running.interrupt_asked or running.expired:
            self._cells.conclude(running)
        elif running.is_adopted:
            unrun = "The controller ended before the cell was sent; nothing of it was executed."
            self._cells.end(running, "lost", "kept", unrun)
        else:  # the request went down with the link
            self._cells.put_back(running)
            self._cells.changed()

    # --- cells, running or ended

    def _take_for_cell(self, message: KernelMessage) -> None:
        running = self._cells.running
        if running is None or message.parent_id != running.execution_id:
            self._take_late(message)
            return
        if message.channel == "stdin":
            if message.msg_type == "input_request":
                running.awaits_input = running.options.allow_stdin
                running.input_asked = not running.awaits_input
            self._cells.changed()
        elif self._took(running, message):
            self._cells.writer.note(running)
        elif message.msg_type == "update_display_data":
            self._take_update(message)
        if running.is_complete:
            self._cells.conclude(running)

    def _take_late(self, message: KernelMessage) -> None:
        """A thread that a cell has started goes on writing after the cell's end."""
        execution = self._recent.get(message.parent_id)
        if execution is None or execution.record.kernel_id != self._cells.kernel_id:
            return
        if message.channel == "iopub" and self._took(execution, message):
            self._cells.writer.note(execution)
            self._recent.add(execution)

    def _take_update(self, message: KernelMessage) -> None:
        """A cell draws anew what earlier ones have shown."""
        shown = [
            execution
            for execution in self._recent.of_kernel(self._cells.kernel_id)
            if execution.shows(message)
        ]
        if not shown:
            return
        try:
            with self._overruns.section("a display update"):
                bundle = shown[0].bundle(message)
                for execution in shown:
                    execution.update(bundle)
        except TooMuchWork as exc:
            self._overruns.note(exc, message.data)
            for execution in shown:
                execution.set_aside(len(message.data))
        for execution in shown:
            self._cells.writer.note(execution)

    def _took(self, execution: Execution, message: KernelMessage) -> bool:
        """Let an execution take a message and return whether its outputs changed."""
        try:
            with self._overruns.section("a cell's output"):
                return execution.take(message)
        except TooMuchWork as exc:
            self._overruns.note(exc, message.data)
            execution.set_aside(len(message.data))
            return True
