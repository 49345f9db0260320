"""One kernel: its queue, its log of messages and its endings.

One task, :meth:`Kernel._work`, decides everything that takes a kernel from one state to another;
another, the pump of the present link, reads messages and only notes what they say. A link may end
at any time: the kernel runs on, and the next link goes on after the last message read.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import anyio
from anyio.abc import TaskGroup

from sandbox.errors import (
    Conflict,
    InfrastructureError,
    LinkLost,
    NotFound,
    QuotaExceeded,
    SandboxError,
)
from sandbox.kernels.execution import Execution
from sandbox.kernels.keeper import Keeper
from sandbox.kernels.log import KernelLog
from sandbox.kernels.messages import KernelMessage, Messages, new_id
from sandbox.kernels.models import ExecutionJournal, ExecutionStatus, KernelInfo, KernelState
from sandbox.kernels.recent import Recent
from sandbox.link import Link
from sandbox.policy.models import Limits

GREETING_INTERVAL_S = 0.25
"""A new kernel is asked again after this time: what it says first may be lost."""
START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 10.0
MAX_QUEUE = 64
MAX_QUESTIONS = 32
OOM_PROBE_TIMEOUT_S = 2.0

OomProbe = Callable[[], Awaitable[bool | None]]

logger = logging.getLogger(__name__)


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


@dataclass(slots=True, eq=False)
class _Probe:
    """A question whose answer proves that the kernel is done with all that was asked before it."""

    msg_id: str
    asked_at: float
    execution: Execution | None
    """The execution that ran when it was asked."""
    is_idle: bool = False
    is_answered: bool = False


class _Restart:
    """A wish to restart, and what came of it."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.error: SandboxError | None = None


class Kernel:
    """A kernel of a session; :meth:`run` must be running.

    Args:
        kernel_id: Its id.
        name: Of its kernelspec.
        around: What it shares with the others.
        epoch: Of a kernel that runs already; 0 for one that is to be started.
    """

    def __init__(self, kernel_id: str, name: str, around: Surroundings, epoch: int = 0) -> None:
        self.kernel_id = kernel_id
        self.name = name
        self.epoch = epoch
        self.failure: SandboxError | None = None
        """Why it could not be started."""
        self._around = around
        self._started_at = self._active_at = time.time()
        self._count = 0
        self._queue: deque[Execution] = deque()
        self._running: Execution | None = None
        self._is_closed = False
        self._is_ready = False
        self._greet_until = 0.0
        self._grace_until: float | None = None
        self._death: str | None = None
        self._exit: Mapping[str, Any] | None = None
        self._dead_at_seq: int | None = None
        self._restart: _Restart | None = None
        self._is_replaced = False
        """Whether its process is being stopped or restarted, so that its exit is no death."""
        self._probe: _Probe | None = None
        self._questions: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._keeper = Keeper(around.journal)
        self._log = KernelLog(kernel_id, self._take, self._keep_now)
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._signals = asyncio.Lock()
        """Held while an interrupt is on its way: it must not hit the next cell."""
        self._tasks: TaskGroup | None = None

    # --- for the session's kernels

    def info(self) -> KernelInfo:
        """The kernel as it is now."""
        state: Literal["starting", "idle", "busy", "dead"] = "idle"
        if self._death is not None:
            state = "dead"
        elif not self._is_ready:
            state = "starting"
        elif self._running or self._queue:
            state = "busy"
        return KernelInfo(
            kernel_id=self.kernel_id,
            name=self.name,
            state=state,
            queue_length=len(self._queue),
            execution_count=self._count,
            started_at=self._started_at,
            last_activity_at=self._active_at,
            session_id=self._around.session_id,
            reason=self._death,
        )

    def executions(self) -> list[Execution]:
        """Those that run or wait."""
        return [*([self._running] if self._running else []), *self._queue]

    async def run(self) -> None:
        """Serve the kernel until it is stopped."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            if self._log.link is not None and self.epoch:
                tasks.start_soon(self._log.pump, self._log.link, self._attached)
            tasks.start_soon(self._keeper.run, self._log)
            await self._work()

    async def wait_ready(self) -> None:
        """Wait until the kernel answers.

        Raises:
            SandboxError: It could not be started.
            Conflict: It died.
        """
        while not self._is_ready:
            if self.failure is not None:
                raise self.failure
            self._check_alive()
            await self._settled.wait()

    def submit(self, execution: Execution) -> None:
        """Put a cell at the end of the queue.

        Raises:
            Conflict: The kernel is dead.
            QuotaExceeded: Too many wait already.
        """
        self._check_alive()
        if len(self._queue) >= MAX_QUEUE:
            raise QuotaExceeded(
                f"{MAX_QUEUE} cells wait for the kernel {self.kernel_id} already.",
                remedy="Wait for them, or interrupt the kernel.",
            )
        if self._running or self._queue or not self._is_ready:
            self._around.journal.started(execution.record)
        self._queue.append(execution)
        self._active_at = time.time()
        self._wake.set()

    async def cancel(self, execution: Execution) -> None:
        """Interrupt a cell if it runs, take it out of the queue if it waits."""
        if execution in self._queue:
            self._queue.remove(execution)
            self._finish(execution, "interrupted", "kept", "It was cancelled before it ran.")
        elif execution is self._running:
            execution.interrupt_asked = True
            await self._interrupt(execution)

    async def interrupt(self) -> None:
        """Interrupt the running cell; harmless when none runs.

        Raises:
            Conflict: The kernel is dead.
            LinkLost: The link ended before the interrupt was confirmed.
        """
        self._check_alive()
        if self._running is not None:
            await self.cancel(self._running)

    async def restart(self) -> None:
        """Restart it, dead or alive: nothing of its state remains, and no cell of its queue runs.

        Raises:
            SandboxError: It could not be restarted.
        """
        if self._is_closed:
            self._check_alive()
        restart = self._restart = self._restart or _Restart()
        self._wake.set()
        await restart.done.wait()
        if restart.error is not None:
            raise restart.error
        await self.wait_ready()

    async def stop(self) -> None:
        """Stop it for good.

        Raises:
            LinkLost: The link ended before that was confirmed.
        """
        self._is_replaced = True
        try:
            await self._log.call("kernel.stop")
        except NotFound:
            pass  # the supervisor forgot it before we did
        finally:
            self._is_replaced = False
        reason = "The kernel was stopped on request."
        self._end_all("interrupted", "lost", reason, "was stopped")
        self.close(reason)

    def close(self, reason: str) -> None:
        """Let go of it: whoever waits for it gets a ``Conflict``; executions stay as they are."""
        self._is_closed = True
        self._death = self._death or reason
        self._fail_questions()
        self._settled.set()
        if self._restart is not None:
            self._restart.done.set()
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    def lose(self, reason: str) -> None:
        """The container is gone: nothing of this kernel can go on."""
        self._end_all("lost", "lost", reason, "was lost")
        self.close(reason)

    def keep(self) -> None:
        """Write to the journal what is new; the last chance before the controller ends."""
        self._keeper.keep(self._log.seq)

    async def ask(self, msg_type: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask the kernel something that it answers between cells.

        Raises:
            Conflict: The kernel is dead, or does not come to it in time.
        """
        await self.wait_ready()
        if len(self._questions) >= MAX_QUESTIONS:
            raise QuotaExceeded(f"The kernel {self.kernel_id} has not answered earlier questions.")
        msg_id = new_id()
        answer = self._questions[msg_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._log.send(self._around.messages.request(msg_type, content, msg_id))
                return await answer
        except TimeoutError as exc:
            raise Conflict(
                f"The kernel {self.kernel_id} is busy and did not answer in "
                f"{ANSWER_TIMEOUT_S:g} s.",
                remedy="Ask again when the running cell has ended, or interrupt it.",
            ) from exc
        finally:
            del self._questions[msg_id]

    # --- links and adoption

    def use(self, link: Link) -> None:
        """Start over this link, before :meth:`run`."""
        self._log.use(link)

    def attach(self, link: Link, epoch: int, last_seq: int, *, is_alive: bool) -> None:
        """Go on over a new link.

        Args:
            link: The link.
            epoch: The kernel's epoch now.
            last_seq: The number of the last message in its log.
            is_alive: Whether its process runs.
        """
        self._log.use(link)
        if self.epoch and epoch != self.epoch:
            running = self._running
            if running is not None and running.expired:
                self._end_overdue(running)
            self._enter(epoch, "The kernel was restarted.")
        self.epoch = epoch
        self._dead_at_seq = None if is_alive else last_seq
        if self._tasks is not None:
            self._tasks.start_soon(self._log.pump, link, self._attached)
        self._note_death_if_read()
        self._wake.set()

    def forgotten(self) -> None:
        """The supervisor does not know it any more."""
        if self.epoch and self._death is None:
            self._exit = {}
            self._wake.set()

    def adopt(self, execution: Execution | None) -> None:
        """Carry on a kernel of an earlier controller, and what it runs, before :meth:`run`."""
        self._is_ready = True
        if execution is not None:
            self._running = execution
            self._log.seq = execution.record.seq

    # --- the task that decides

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            delay_s = await self._step()
            with anyio.move_on_after(delay_s):
                await self._wake.wait()

    async def _step(self) -> float | None:
        """Do what is next; returns after how many seconds something is due, if that is known."""
        if not self.epoch:
            return await self._start()
        if self._exit is not None:
            await self._bury(self._exit)
        if self._restart is not None:
            restart, self._restart = self._restart, None
            await self._replace(restart)
        if self._death is not None or not self._log.is_attached:
            return None
        if not self._is_ready:
            return await self._greet()
        if self._running is None and self._queue:
            await self._begin(self._queue.popleft())
        return None if self._running is None else await self._watch(self._running)

    async def _start(self) -> None:
        try:
            answer = await self._log.call("kernel.start", name=self.name)
            epoch = _epoch(answer)
        except SandboxError as exc:
            if self.epoch:
                return  # the next link found that it had been started
            self.failure = exc
            self._end_all("lost", "lost", f"It did not start: {exc.message}", "failed to start")
            self.close("It did not start.")
            return
        if not self.epoch and self._log.link is not None and self._tasks is not None:
            self._tasks.start_soon(self._log.pump, self._log.link, self._attached)
        self.epoch = epoch

    async def _greet(self) -> float:
        """Ask a new kernel whether it is there, until it is."""
        now = time.monotonic()
        self._greet_until = self._greet_until or now + START_TIMEOUT_S
        if now > self._greet_until:
            self._die(f"It did not answer within {START_TIMEOUT_S:g} s of its start.")
            return 0
        if self._probe is None or now - self._probe.asked_at >= GREETING_INTERVAL_S:
            await self._ask_probe()
        return GREETING_INTERVAL_S

    async def _begin(self, execution: Execution) -> None:
        request = self._around.messages.execute(execution.record.code, execution.execution_id)
        async with self._signals:
            self._running = execution
            self._grace_until = None
            execution.begin(self.epoch, self._log.seq)
            try:
                self._around.journal.started(execution.record)
                await self._log.send(request)
            except SandboxError:  # then nothing was sent
                self._put_back(execution)

    async def _watch(self, running: Execution) -> float | None:
        """See that the running cell keeps to its time."""
        if running.input_asked and not running.interrupt_asked:
            running.interrupt_asked = True
            await self._try_interrupt(running)
        left_s = running.left_s
        if left_s > 0:
            return left_s
        if self._grace_until is None:
            running.expired = True
            if not await self._try_interrupt(running):
                return None
            self._grace_until = time.monotonic() + self._around.grace_s
        left_s = self._grace_until - time.monotonic()
        if left_s > 0 or self._running is not running:
            return max(0.0, left_s)
        await self._replace(None)
        return None

    async def _try_interrupt(self, running: Execution) -> bool:
        """Interrupt a cell; False when the link ended, so that it must be tried again."""
        try:
            await self._interrupt(running)
        except LinkLost:
            return False
        except SandboxError as exc:
            logger.warning("kernel %s cannot be interrupted: %s", self.kernel_id, exc)
        return True

    async def _interrupt(self, execution: Execution) -> None:
        async with self._signals:
            if execution is self._running:
                await self._log.call("kernel.interrupt")

    async def _replace(self, wish: _Restart | None) -> None:
        """Restart the kernel: because somebody asked, or (None) because a cell did not stop."""
        epoch = self.epoch
        self._is_replaced = True
        try:
            entered = _epoch(await self._log.call("kernel.restart"))
            if self.epoch == epoch:  # no new link has found it restarted already
                if wish is None and self._running is not None:
                    self._end_overdue(self._running)
                self._enter(entered, "The kernel was restarted on request.")
        except LinkLost as exc:  # without a wish the next link leads here again
            self._refuse(wish, exc)
        except SandboxError as exc:
            self._die(f"It could not be restarted: {exc.message}")
            self._refuse(wish, exc)
        finally:
            self._is_replaced = False
            if wish is not None:
                wish.done.set()

    @staticmethod
    def _refuse(wish: _Restart | None, error: SandboxError) -> None:
        if wish is not None:
            wish.error = error

    def _end_overdue(self, running: Execution) -> None:
        running.end_timeout("restarted", "so the kernel was restarted.")
        self._close(running)

    def _enter(self, epoch: int, reason: str) -> None:
        """A new process of the same id: end what the old one left and wait for the new one."""
        self._end_all("interrupted", "restarted", reason, "was restarted")
        self._exit = None
        self.epoch = epoch
        self._death = None
        self._dead_at_seq = None
        self._count = 0
        self._started_at = self._active_at = time.time()
        self._is_ready = False
        self._greet_until = 0.0
        self._probe = None
        self._wake.set()

    async def _bury(self, exit_event: Mapping[str, Any]) -> None:
        """The process has exited by itself: say why."""
        oom = exit_event.get("oom")
        if not isinstance(oom, bool) and self._around.oom_probe is not None:
            with anyio.move_on_after(OOM_PROBE_TIMEOUT_S):
                try:
                    oom = await self._around.oom_probe()
                except SandboxError as exc:
                    logger.warning("cannot tell why kernel %s died: %s", self.kernel_id, exc)
        if self._exit is exit_event:  # it was not restarted meanwhile
            self._exit = None
            self._die(_cause(exit_event, oom is True))

    def _die(self, reason: str) -> None:
        self._death = reason
        self._end_all("died", "lost", reason, "died")
        self._fail_questions()
        self._is_ready = False
        self._settled.set()
        self._settled = asyncio.Event()

    def _end_all(self, status: ExecutionStatus, state: KernelState, reason: str, fate: str) -> None:
        """End the running cell as said, and those behind it as never run."""
        if self._running is not None:
            self._finish(self._running, status, state, reason)
        while self._queue:
            unrun = f"The kernel {fate} before this cell ran; nothing of it was executed."
            self._finish(self._queue.popleft(), "lost", state, unrun)

    def _finish(
        self, execution: Execution, status: ExecutionStatus, state: KernelState, reason: str
    ) -> None:
        execution.end(status, state, reason)
        self._close(execution)

    def _close(self, execution: Execution) -> None:
        """Let go of an execution that has ended."""
        if execution is self._running:
            self._running = None
        self._keeper.finish(execution, self._log.seq)
        self._around.recent.add(execution)
        self._wake.set()

    # --- what the kernel says

    async def _attached(self) -> None:
        self._wake.set()
        if self._running is not None:
            await self._ask_probe()  # was the request lost with the last link?

    async def _keep_now(self) -> None:
        await self._keeper.keep_and_acknowledge(self._log, force=True)

    def _take(self, message: KernelMessage) -> None:
        self._keeper.note()
        if message.channel == "event":
            self._take_event(message)
        elif message.epoch == self.epoch:
            self._active_at = time.time()
            self._take_message(message)
        self._note_death_if_read()

    def _take_message(self, message: KernelMessage) -> None:
        running, parent_id = self._running, message.parent_id
        if running is not None and parent_id == running.execution_id:
            if message.channel == "stdin":
                running.input_asked = message.msg_type == "input_request"
                self._wake.set()
            elif running.take(message):
                self._keeper.note(running)
            elif message.msg_type == "update_display_data":
                self._take_update(message)
            if running.is_complete:
                self._conclude(running)
        elif self._probe is not None and parent_id == self._probe.msg_id:
            self._take_probe(self._probe, message)
        elif parent_id in self._questions:
            answer = self._questions[parent_id]
            if message.channel == "shell" and not answer.done():
                answer.set_result(message.content)
        elif message.channel == "iopub":
            self._take_late(message)

    def _take_late(self, message: KernelMessage) -> None:
        """A thread that a cell has started goes on writing after the cell's end."""
        execution = self._around.recent.get(message.parent_id)
        if execution is None or execution.record.kernel_id != self.kernel_id:
            return
        if execution.take(message):
            self._keeper.note(execution)
            self._around.recent.add(execution)

    def _take_update(self, message: KernelMessage) -> None:
        """A cell draws anew what an earlier one has shown."""
        for execution in self._around.recent.of_kernel(self.kernel_id):
            if execution.update(message):
                self._keeper.note(execution)

    def _conclude(self, running: Execution) -> None:
        running.conclude()
        self._count = running.snapshot().execution_count or self._count
        self._close(running)

    def _take_event(self, message: KernelMessage) -> None:
        event, running = message.content, self._running
        if message.msg_type == "exited":
            if message.epoch == self.epoch and not self._is_replaced:
                self._exit = event
                self._wake.set()
        elif message.msg_type == "dropped" and running is not None:
            running.lose(_size(event), "Some of its output was lost while nobody could read it.")
            self._keeper.note(running)
            self._doubt()
        elif message.msg_type == "oversize" and running is not None:
            if message.parent_id != running.execution_id:
                return
            running.lose(_size(event), "A message was too large to be sent.")
            self._keeper.note(running)
            self._doubt()

    def _note_death_if_read(self) -> None:
        """A process that is gone says nothing more: with the last message its end is known."""
        if self._dead_at_seq is not None and self._log.seq >= self._dead_at_seq:
            self._dead_at_seq = None
            if self._death is None and self._exit is None:
                self._exit = {}
                self._wake.set()

    # --- probes

    def _doubt(self) -> None:
        """What ends the running cell may have been lost: find out."""
        if self._tasks is not None:
            self._tasks.start_soon(self._ask_probe)

    async def _ask_probe(self) -> None:
        probe = self._probe = _Probe(new_id(), time.monotonic(), self._running)
        request = self._around.messages.request("kernel_info_request", {}, probe.msg_id)
        try:
            await self._log.send(request)
        except SandboxError:
            return  # the next link asks again

    def _take_probe(self, probe: _Probe, message: KernelMessage) -> None:
        if message.channel == "shell":
            probe.is_answered = True
        elif message.msg_type == "status" and message.content.get("execution_state") == "idle":
            probe.is_idle = True
        if not (probe.is_answered and probe.is_idle):
            return
        self._probe = None
        if not self._is_ready:
            self._is_ready = True
            self._settled.set()
            self._settled = asyncio.Event()
            self._wake.set()
        running = self._running
        if running is None or running is not probe.execution:
            return
        if running.was_seen:
            self._conclude(running)
        elif running.is_adopted:
            unrun = "The controller ended before the cell was sent; nothing of it was executed."
            self._finish(running, "lost", "kept", unrun)
        else:  # the request went down with the link
            self._put_back(running)
            self._wake.set()

    def _put_back(self, execution: Execution) -> None:
        """Let a cell wait again that has not reached the kernel."""
        execution.wait_again()
        self._running = None
        self._queue.appendleft(execution)

    def _check_alive(self) -> None:
        if self._death is not None:
            raise Conflict(
                f"The kernel {self.kernel_id} is dead. {self._death}",
                remedy="Its variables are lost. Restart it, or start another one.",
            )

    def _fail_questions(self) -> None:
        for answer in self._questions.values():
            if not answer.done():
                answer.set_exception(Conflict(f"The kernel {self.kernel_id} died."))


def _epoch(answer: Mapping[str, Any]) -> int:
    epoch = answer.get("epoch")
    if type(epoch) is not int or not 0 < epoch < 2**31:
        raise InfrastructureError("The supervisor did not say which epoch the kernel is in.")
    return epoch


def _size(event: Mapping[str, Any]) -> int:
    size = event.get("bytes")
    return size if type(size) is int and 0 <= size < 2**50 else 0


def _cause(event: Mapping[str, Any], is_oom: bool) -> str:
    """Why a kernel has exited, in words."""
    if is_oom:
        return "It was killed because the sandbox ran out of memory."
    number, exit_code = event.get("signal"), event.get("exit_code")
    if type(number) is int and 0 < number < 65:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"It was ended by {name}."
    if type(exit_code) is int:
        return f"It exited with code {exit_code & 0xFF}."
    return "Its process is gone, for a reason that is not known."
