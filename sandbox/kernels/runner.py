"""Sends a kernel its next cell, sees that the cell keeps to its time, and interrupts it."""

from __future__ import annotations

import logging
import time

import anyio

from sandbox.errors import LinkLost, SandboxError
from sandbox.kernels.answers import count_of
from sandbox.kernels.attachment import Attachment
from sandbox.kernels.cells import Cells
from sandbox.kernels.execution import Execution
from sandbox.kernels.questions import Questions
from sandbox.kernels.shared import SharedByKernels

GREETING_INTERVAL_S = 0.25
"""A new kernel is asked again after this time: what it says first may be lost."""
START_TIMEOUT_S = 60.0
EXECUTING_TIMEOUT_S = 1.0
"""An interrupt waits so long for the cell to begin: before that, kernels do not hear it."""
BEGINNING_S = 0.1
"""An interrupt also waits until so long after a kernel has said that the cell begins: kernels say
that a little before they hear interrupts."""
MANY_PROCESSES = 32
"""A cell that has started more gets no grace: a kernel does not come back from so many children
that it never waits for."""

logger = logging.getLogger(__name__)


class Runner:
    """Runs the cells of one kernel."""

    def __init__(
        self, cells: Cells, questions: Questions, attachment: Attachment, around: SharedByKernels
    ) -> None:
        self._cells = cells
        self._questions = questions
        self._attachment = attachment
        self._around = around
        self._greet_until = 0.0
        self._grace_until: float | None = None
        self._signals = anyio.Lock()
        """Held while an interrupt is on its way: it must not hit the next cell."""

    @property
    def has_waited_in_vain(self) -> bool:
        """Whether a new process has not answered in time."""
        return bool(self._greet_until) and time.monotonic() > self._greet_until

    async def greet(self) -> float:
        """Ask a new process whether it is there; after how many seconds to do so again."""
        now = time.monotonic()
        self._greet_until = self._greet_until or now + START_TIMEOUT_S
        probe = self._questions.probe
        if probe is None or now - probe.asked_at >= GREETING_INTERVAL_S:
            await self.probe()
        return GREETING_INTERVAL_S

    def forget(self) -> None:
        """There is a new process: nothing that the last one was asked is answered any more."""
        self._greet_until = 0.0
        self._questions.probe = None

    async def begin(self, epoch: int) -> None:
        """Send the next cell, if one waits."""
        async with self._signals:
            execution = self._cells.begin_next(epoch)
            if execution is None:
                return
            self._grace_until = None
            record = execution.record
            request = self._around.messages.execute(
                record.code, record.execution_id, execution.options
            )
            try:
                await self._attachment.send(request)
            except SandboxError:  # then nothing was sent
                self._cells.put_back(execution)

    async def watch(self, running: Execution) -> float | None:
        """See to the running cell, and interrupt it when its time is over.

        Returns:
            After how many seconds it is to be looked at again, None when something else will tell.
            When it has not heeded the interrupt it ``is_overdue`` then.
        """
        if running.input_asked and not running.interrupt_asked:
            running.interrupt_asked = True
            running.interrupt_asked = await self._try_interrupt(running)
        left_s = running.left_s
        if left_s > 0:
            return left_s
        if self._grace_until is None:
            running.expired = True
            if not await self._try_interrupt(running):
                return None
            if self._grace_until is None:
                self._grace_until = time.monotonic() + self._around.grace_s
        left_s = self._grace_until - time.monotonic()
        if left_s > 0 or self._cells.running is not running:
            return max(0.0, left_s)
        running.is_overdue = True
        return None

    async def cancel(self, execution: Execution) -> None:
        """Interrupt a cell if it runs, take it out of the queue if it waits.

        Raises:
            LinkLost: The link ended before the interrupt was confirmed.
        """
        if not self._cells.withdraw(execution) and execution is self._cells.running:
            execution.interrupt_asked = True
            await self._interrupt(execution)

    async def probe(self) -> None:
        """Ask for the end of the running cell; without a link the next one asks again."""
        try:
            await self._questions.ask_probe(self._cells.running)
        except SandboxError:
            return

    async def _try_interrupt(self, running: Execution) -> bool:
        """Interrupt a cell; False when the link ended, so that it must be tried again."""
        try:
            await self._interrupt(running)
        except LinkLost:
            return False
        except SandboxError as exc:
            logger.warning("kernel %s cannot be interrupted: %s", self._cells.kernel_id, exc)
        return True

    async def _interrupt(self, execution: Execution) -> None:
        with anyio.move_on_after(EXECUTING_TIMEOUT_S):
            await execution.executing.wait()
            await anyio.sleep(max(0.0, execution.began_at + BEGINNING_S - time.monotonic()))
        async with self._signals:
            if execution is self._cells.running:
                # With its time ends what it has started, but nothing that earlier cells have.
                answer = await self._attachment.call("kernel.interrupt", expired=execution.expired)
                if count_of(answer) > MANY_PROCESSES:
                    self._grace_until = 0.0
            if execution is self._cells.running:  # perhaps it was about to reply, and never does
                await self.probe()
