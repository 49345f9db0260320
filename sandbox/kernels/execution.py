"""One execution: a cell on its way through a kernel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sandbox.kernels.events import KernelEvents, LoggedMessage
from sandbox.kernels.innerends import with_reason
from sandbox.kernels.lateoutputs import LateOutputs
from sandbox.kernels.messages import SET_ASIDE, CellOptions, KernelMessage
from sandbox.kernels.models import (
    ExecutionError,
    ExecutionRecord,
    ExecutionResult,
    ExecutionStatus,
    KernelState,
)
from sandbox.kernels.replies import Reply, number, reply_of
from sandbox.kernels.verdict import QUEUED_REASON, SET_ASIDE_REASON, time_over, verdict
from sandbox.outputs.bundles import Bundle
from sandbox.outputs.collector import OUTPUTS, OutputCollector
from sandbox.outputs.denials import Denial, DenialLog, joined
from sandbox.outputs.eventlog import Read
from sandbox.outputs.redaction import Redactor

LOSSES = frozenset(("dropped", SET_ASIDE))
"""Events that say that messages were lost, whoever's they were."""

Cancel = Callable[["Execution"], Awaitable[None]]


class Execution:
    """A cell that waits, runs or has ended. Made by :meth:`sandbox.kernels.Kernels.execute`."""

    def __init__(
        self,
        record: ExecutionRecord,
        output_bytes: int,
        cancel: Cancel,
        denials: DenialLog,
        redactor: Redactor | None = None,
    ) -> None:
        self.record = record
        self.execution_id = record.execution_id
        self.is_adopted = record.state == "running"
        """Whether another controller has sent it to the kernel, or was about to."""
        self.version = 0
        """Grows with each change that :meth:`snapshot` shows."""
        self.expired = False
        """Whether it was interrupted because its time is over."""
        self.is_overdue = False
        """Whether it went on all the same: its kernel is being restarted, and only that is told."""
        self.interrupt_asked = False
        """Whether it was interrupted because somebody asked for it."""
        self.input_asked = False
        """Whether it was interrupted because it waits for input."""
        self.options = CellOptions()
        self.awaits_input = False
        """Whether it waits for input that somebody may give."""
        self.was_seen = False
        """Whether the kernel has said anything about it."""
        self.executing = asyncio.Event()
        """Set when the cell itself runs, or begins to."""
        self.began_at = 0.0
        """When its kernel said that it begins (monotonic, seconds); 0 once it has done something,
        so that an interrupt reaches it for sure."""
        self.events: KernelEvents | None = None
        """What its kernel says; None when nobody can read that any more."""
        self._cancel = cancel
        self._denials = denials
        self._denied_before = denials.mark()
        self._output_bytes = output_bytes
        self._redactor = redactor
        self._collector = OutputCollector(output_bytes, redactor=redactor)
        self.count: int | None = None
        """The kernel's number for it; None when it has not given one."""
        self.late = LateOutputs(redactor)
        """What is told with it of cells that had ended before."""
        self.exit_code: int | None = None
        """With which it ended its process or itself; None where it has not, or none is known."""
        self.going_on = ""
        """Which processes it leaves running, in words."""
        self._reply: Reply | None = None
        """What the kernel says at its end; None as long as it has not."""
        self._is_idle = False
        self._notes: list[str] = []
        self._result: ExecutionResult | None = None
        self._end: int | None = None
        """The kernel's last message when it ended."""
        self._is_remembered = False
        """Whether all that is known of it is in the result."""
        self._changed = asyncio.Event()
        self._started: float | None = None
        if record.started_at is not None:
            self._started = time.monotonic() - max(0.0, time.time() - record.started_at)
        if (kept := record.snapshot) is not None:
            self._collector.restore(kept.outputs, kept.truncated_bytes, kept.dropped_types)
            self.late = LateOutputs(redactor, kept.late)
            self.count = kept.execution_count
            self.was_seen = True

    @classmethod
    def ended(
        cls,
        result: ExecutionResult,
        record: ExecutionRecord | None = None,
        output_bytes: int = 0,
        redactor: Redactor | None = None,
    ) -> Execution:
        """An execution that has ended; with its record, which has its end, it can show more."""
        known = record or ExecutionRecord.of_ended(result)
        execution = cls(known, output_bytes, _do_nothing, DenialLog(), redactor)
        execution._result, execution._is_remembered = result, record is None
        return execution

    # --- for callers

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._result is not None

    def snapshot(self) -> ExecutionResult:
        """The execution as it is now; its end once it has ended."""
        if self._result is None:
            reason = QUEUED_REASON if self._started is None else None
            return self._shown("running", "kept", reason, None)
        if self._is_remembered:
            return self._result
        update = {
            "outputs": self._collector.outputs(),
            "truncated_bytes": self._collector.truncated_bytes,
            "dropped_types": dict(self._collector.dropped_types),
        }
        return self._result.model_copy(update=update)

    async def wait(self, timeout_s: float | None = None) -> ExecutionResult:
        """Wait for its end, or for so long; without bound when None.

        Returns:
            How it ended, or, when the time was up, how it stands: ``status`` is ``running``.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._result is None:
                    await self._changed.wait()
        return self.snapshot()

    async def changed(self, after_version: int) -> int:
        """Wait until :attr:`version` is past ``after_version`` and return it."""
        while self.version <= after_version:
            await self._changed.wait()
        return self.version

    def read(self, position: int = 0) -> Read[LoggedMessage]:
        """The kernel's messages that belong to it after one, as far as they are there."""
        if self.events is None or self._started is None:
            return Read((), position)
        got = self.events.read(max(position, self.record.begun_seq))
        return Read(tuple(filter(self._owns, got.entries)), got.position, got.missed)

    async def follow(self, position: int = 0) -> AsyncGenerator[Read[LoggedMessage]]:
        """The kernel's messages that belong to it after one, as they come, until it has ended.

        Any number of readers may follow it at once. One that comes too late, or is too slow, is
        told how many messages of the kernel it missed; where the kernel is gone, there are none.
        """
        while self._started is None and self._result is None:
            await self._changed.wait()
        while self.events is not None:
            # Read after this is known: then all that belongs to it is there.
            is_over = self.is_over or self.events.log.is_over
            got = self.read(position)
            if got.entries or got.missed:
                yield got
            elif got.position <= position and is_over:
                return
            elif got.position <= position:
                await self.events.log.changed()
            position = got.position

    async def cancel(self) -> None:
        """Interrupt the cell if it runs, take it out of the queue if it waits.

        Raises:
            LinkLost: The link ended before the interrupt was confirmed.
        """
        if self._result is None:
            await self._cancel(self)

    # --- for its kernel

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return self._collector.size_bytes + len(self.record.code)

    @property
    def is_settled(self) -> bool:
        """Whether another controller could carry on from :meth:`snapshot` without a difference that
        matters: see :attr:`OutputCollector.is_settled`."""
        return self._collector.is_settled and self.late.is_settled

    @property
    def is_complete(self) -> bool:
        """Whether the kernel has said all that ends a cell, idle and the reply, in time."""
        return self._is_idle and self._reply is not None and not self.is_overdue

    @property
    def has_exited(self) -> bool:
        """Whether it ended itself, by ``exit()``, and its kernel goes on. Of bash every cell has an
        exit code."""
        is_told = self._reply is not None and self._reply.exit_code is not None
        return is_told and self.record.kernel_name != "bash"

    @property
    def left_s(self) -> float:
        """The seconds it may still run."""
        if self._started is None:
            return self.record.timeout_s
        return self._started + self.record.timeout_s - time.monotonic()

    def begin(self, epoch: int, seq: int) -> None:
        """It is about to be sent to the kernel, whose last message had this number."""
        self._started = time.monotonic()
        self._denied_before = self._denials.mark()
        update = {"state": "running", "started_at": time.time(), "epoch": epoch}
        self.record = self.record.model_copy(update=update | {"begun_seq": seq, "seq": seq})
        self._bump()

    def wait_again(self) -> None:
        """It did not get to the kernel."""
        self._started = None
        update = {"state": "queued", "started_at": None}
        self.record = self.record.model_copy(update=update)
        self._bump()

    def take(self, message: KernelMessage) -> bool:
        """Take a message that belongs to it and return whether the outputs changed."""
        self.was_seen = True
        content = message.content
        if message.channel == "shell":
            if message.msg_type == "execute_reply" and self._reply is None:
                self._take_reply(reply_of(message), content)
                return True
        elif message.channel == "iopub":
            if message.msg_type in OUTPUTS:
                self.began_at = 0.0
                self.executing.set()
                changed = self._collector.add(message.msg_type, content)
                if changed:
                    self._bump()
                return changed
            if message.msg_type == "execute_input":
                self.began_at = time.monotonic()
                self.executing.set()
                self.count = number(content.get("execution_count"))
            elif message.msg_type == "status" and content.get("execution_state") == "idle":
                self._is_idle = True
        return False

    def shows(self, message: KernelMessage) -> bool:
        """Whether a display update of another cell changes something that it shows."""
        return self._collector.shows(message.content)

    def bundle(self, message: KernelMessage) -> Bundle:
        """What a display update shows, for all executions that it is for."""
        return self._collector.bundle(message.content)

    def update(self, bundle: Bundle) -> None:
        """Take a display update that another cell sent."""
        if self._collector.update(bundle):
            self._bump()

    def refuse_input(self) -> None:
        """Nobody answers any more when it asks for input: if it waits for that, it is stopped."""
        self.options = replace(self.options, allow_stdin=False)
        self.input_asked = self.input_asked or self.awaits_input
        self.awaits_input = False

    def lose(self, size_bytes: int, note: str) -> None:
        """Output of it was lost on its way."""
        self._collector.lose(size_bytes)
        if note not in self._notes:
            self._notes.append(note)
            if self._result is not None:
                reason = " ".join(filter(None, (self._result.reason, note)))
                self._result = self._result.model_copy(update={"reason": reason})
        self._bump()

    def set_aside(self, size_bytes: int) -> None:
        """Working on a message took too long and was stopped half-way: begin its outputs anew."""
        lost = size_bytes + self._collector.truncated_bytes + self._collector.size_bytes
        self._collector = OutputCollector(self._output_bytes, redactor=self._redactor)
        self.lose(lost, SET_ASIDE_REASON)

    def conclude(self) -> None:
        """End it as the kernel said."""
        status, reason = verdict(
            self._reply.status if self._reply else None,
            self._collector.error,
            over=time_over(self.record.timeout_s) if self.expired else "",
            interrupted=self.interrupt_asked,
            asked_input=self.input_asked,
            exited=self.has_exited,
        )
        state = self._reply.state if self._reply else "kept"
        self.end(status, state, with_reason(state, reason))

    def end_timeout(self, state: KernelState, what: str) -> None:
        """End it because its time is over and it did not heed the interrupt."""
        over = time_over(self.record.timeout_s)
        self.end("timeout", state, f"{over} It did not stop when interrupted, {what}")

    def end(self, status: ExecutionStatus, state: KernelState, reason: str) -> None:
        """End it, once and for all."""
        if self._result is not None:
            return
        self._collector.finish()
        self.late.finish()
        found = self._collector.error
        error = None
        if found is not None and status != "ok":
            error = ExecutionError(
                name=found["ename"], value=found["evalue"], traceback=found["traceback"]
            )
        reason = " ".join(filter(None, (reason, *self._notes)))
        self._result = self._shown(status, state, reason or None, error, outputs=[])
        self.executing.set()
        self._bump()
        if self.events is not None:
            self._end = self.events.log.end
            self.events.log.wake()

    # --- inside

    def _owns(self, message: LoggedMessage) -> bool:
        if message.channel == "event" and message.msg_type in LOSSES:
            return self._end is None or message.seq <= self._end
        return message.parent_id == self.execution_id and message.epoch == self.record.epoch

    def _take_reply(self, reply: Reply, content: Mapping[str, Any]) -> None:
        self._reply = reply
        self.exit_code = reply.exit_code
        self.count = self.count if reply.count is None else reply.count
        if reply.status == "error" and self._collector.error is None:
            self._collector.add("error", content)
        for page in reply.pages:
            self._collector.add("display_data", page)

    def _shown(
        self,
        status: ExecutionStatus,
        state: KernelState,
        reason: str | None,
        error: ExecutionError | None,
        outputs: list[dict[str, Any]] | None = None,
    ) -> ExecutionResult:
        return ExecutionResult.model_construct(  # its own values, so nothing is to be checked
            execution_id=self.record.execution_id,
            session_id=self.record.session_id,
            kernel_id=self.record.kernel_id,
            status=status,
            state=state,
            execution_count=self.count,
            outputs=self._collector.outputs() if outputs is None else outputs,
            error=error,
            duration_s=0.0 if self._started is None else time.monotonic() - self._started,
            truncated_bytes=self._collector.truncated_bytes,
            dropped_types=dict(self._collector.dropped_types),
            reason=reason,
            checkpoint=self.record.checkpoint,
            denials=self._all_denials(),
            late=self.late.told(),
            exit_code=self.exit_code,
            going_on=self.going_on,
        )

    def _all_denials(self) -> tuple[Denial, ...]:
        """Those that an earlier controller saw and those since its start."""
        if self._started is None:
            return ()
        snapshot = self.record.snapshot
        return joined(
            (*(snapshot.denials if snapshot else ()), *self._denials.since(self._denied_before))
        )

    def _bump(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()


async def _do_nothing(_execution: Execution) -> None:
    """There is nothing to cancel in an execution that has ended."""
