"""What a kernel says: whom each message concerns, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sandbox.errors import TooMuchWork
from sandbox.kernels.answers import exit_code_in, going_on_in, processes_of, size_of
from sandbox.kernels.cells import Cells
from sandbox.kernels.execution import Execution
from sandbox.kernels.lateoutputs import LateOutputs
from sandbox.kernels.messages import SET_ASIDE, KernelMessage, unsent_error
from sandbox.kernels.questions import EndProbe, Questions
from sandbox.kernels.shared import SharedByKernels
from sandbox.outputs.collector import OUTPUTS

MAX_RECALLS = 256
"""How often one kernel's messages make us look for a cell in the journal: forged ones could name
any, each of which may be large there."""


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
        self._around = around
        self._overruns = around.overruns
        self._recalls = 0
        self._unknown_id = ""
        """The last id that the journal does not know."""

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
            if running is not None:
                running.exit_code = exit_code_in(event)
            self._kernel.exited(event)
        if running is None:
            return
        match message.msg_type:
            case "dropped":
                self._lose(running, event, "Output was lost while nobody could read it.")
            case "ended":
                self._cells.lose(0, f"{processes_of(event)} that it had started were ended.")
            case "going_on" if running.execution_id == message.parent_id:
                running.going_on = self._around.redactor.text(going_on_in(event))
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
        if message.channel != "iopub" or message.msg_type not in OUTPUTS:
            return
        execution = self._recent.get(message.parent_id) or self._recalled(message.parent_id)
        if execution is None or execution.record.kernel_id != self._cells.kernel_id:
            return
        if message.seq <= execution.record.seq:
            return  # an earlier controller has put it into the journal
        if self._took(execution, message, self._cells.late):
            self._cells.writer.note(execution)
            self._recent.add(execution)
            if (running := self._cells.running) is not None:
                self._cells.writer.note(running)
            self._around.tell_late(execution)

    def _recalled(self, execution_id: str) -> Execution | None:
        """An execution that is in the journal only."""
        if execution_id == self._unknown_id or self._recalls >= MAX_RECALLS:
            return None
        self._recalls += 1
        try:
            with self._overruns.section("what the journal has of a cell"):
                found = self._around.recalled(execution_id)
        except TooMuchWork as exc:
            self._overruns.note(exc)
            found = None
        if found is None:
            self._unknown_id = execution_id
        return found

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

    def _took(
        self, execution: Execution, message: KernelMessage, late: LateOutputs | None = None
    ) -> bool:
        """Let an execution take a message and return whether its outputs changed.

        Args:
            late: Where its outputs are told of, too, as it has ended.
        """
        execution_id = execution.execution_id
        try:
            with self._overruns.section("a cell's output"):
                is_changed = execution.take(message)
                if late is not None and is_changed:
                    late.add(execution_id, execution.count, message.msg_type, message.content)
                return is_changed
        except TooMuchWork as exc:
            self._overruns.note(exc, message.data)
            execution.set_aside(len(message.data))
            if late is not None:
                late.forget(execution_id)
            return True
