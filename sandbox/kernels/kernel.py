"""One kernel: its queue, its log of messages and its endings.

One task, :meth:`Kernel._work`, decides everything that takes a kernel from one state to another;
another, the pump of the present link, reads messages and only notes what they say. A link may end
at any time: the kernel runs on, and the next link goes on after the last message read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Literal

import anyio
from anyio.abc import TaskGroup

from sandbox.errors import Conflict, LinkLost, NotFound, SandboxError
from sandbox.kernels.answers import cause_of, epoch_of, size_of
from sandbox.kernels.cells import Cells, Surroundings
from sandbox.kernels.execution import Execution
from sandbox.kernels.log import KernelLog
from sandbox.kernels.messages import KernelMessage, unsent_error
from sandbox.kernels.models import KernelInfo
from sandbox.kernels.questions import Probe, Questions
from sandbox.link import Link

GREETING_INTERVAL_S = 0.25
"""A new kernel is asked again after this time: what it says first may be lost."""
START_TIMEOUT_S = 60.0
EXECUTING_TIMEOUT_S = 1.0
"""An interrupt waits so long for the cell to begin: before that, kernels do not hear it."""
OOM_PROBE_TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


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
        self._log = KernelLog(kernel_id, self._take, self._keep_now)
        self._cells = Cells(kernel_id, around, self._log, self._attend)
        self._questions = Questions(kernel_id, around.messages, self._log.send)
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
        elif self._cells.running or self._cells.waiting:
            state = "busy"
        return KernelInfo(
            kernel_id=self.kernel_id,
            name=self.name,
            state=state,
            queue_length=self._cells.waiting,
            execution_count=self._cells.count,
            started_at=self._started_at,
            last_activity_at=self._active_at,
            session_id=self._around.session_id,
            reason=self._death,
        )

    def executions(self) -> list[Execution]:
        """Those that run or wait."""
        return [*self._cells]

    async def run(self) -> None:
        """Serve the kernel until it is stopped."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            if self._log.link is not None and self.epoch:
                tasks.start_soon(self._log.pump, self._log.link, self._attached)
            tasks.start_soon(self._cells.keeper.run, self._log)
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
        self._cells.put(execution, runs_at_once=self._is_ready)
        self._active_at = time.time()

    async def cancel(self, execution: Execution) -> None:
        """Interrupt a cell if it runs, take it out of the queue if it waits."""
        if not self._cells.withdraw(execution) and execution is self._cells.running:
            execution.interrupt_asked = True
            await self._interrupt(execution)

    async def interrupt(self) -> None:
        """Interrupt the running cell; harmless when none runs.

        Raises:
            Conflict: The kernel is dead.
            LinkLost: The link ended before the interrupt was confirmed.
        """
        self._check_alive()
        if self._cells.running is not None:
            await self.cancel(self._cells.running)

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
        self._cells.end_all("interrupted", "lost", reason, "was stopped")
        self.close(reason)

    def close(self, reason: str) -> None:
        """Let go of it: whoever waits for it gets a ``Conflict``; executions stay as they are."""
        self._is_closed = True
        self._death = self._death or reason
        self._questions.fail()
        self._settled.set()
        if self._restart is not None:
            self._restart.done.set()
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    def lose(self, reason: str) -> None:
        """The container is gone: nothing of this kernel can go on."""
        self._cells.end_all("lost", "lost", reason, "was lost")
        self.close(reason)

    def keep(self) -> None:
        """Write to the journal what is new; the last chance before the controller ends."""
        self._cells.keeper.keep(self._log.seq)

    async def ask(self, msg_type: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask the kernel something that it answers between cells.

        Raises:
            Conflict: The kernel is dead, or does not come to it in time.
        """
        await self.wait_ready()
        return await self._questions.ask(msg_type, content)

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
        if self._is_closed:
            return
        self._log.use(link)
        if self.epoch and epoch != self.epoch:
            running = self._cells.running
            if running is not None and running.expired:
                self._cells.end_overdue(running)
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
            self._cells.running = execution
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
        if self._cells.running is None:
            await self._begin()
        return None if self._cells.running is None else await self._watch(self._cells.running)

    async def _start(self) -> None:
        try:
            answer = await self._log.call("kernel.start", name=self.name)
            epoch = epoch_of(answer)
        except SandboxError as exc:
            if self.epoch:
                return  # the next link found that it had been started
            self.failure = exc
            reason = f"The kernel did not start: {exc.message}"
            self._cells.end_all("lost", "lost", reason, "failed to start")
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
        probe = self._questions.probe
        if probe is None or now - probe.asked_at >= GREETING_INTERVAL_S:
            await self._ask_probe()
        return GREETING_INTERVAL_S

    async def _begin(self) -> None:
        async with self._signals:
            execution = self._cells.begin_next(self.epoch)
            if execution is None:
                return
            self._grace_until = None
            record = execution.record
            try:
                await self._log.send(
                    self._around.messages.execute(record.code, record.execution_id)
                )
            except SandboxError:  # then nothing was sent
                self._cells.put_back(execution)

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
        if left_s > 0 or self._cells.running is not running:
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
        with anyio.move_on_after(EXECUTING_TIMEOUT_S):
            await execution.executing.wait()
        async with self._signals:
            if execution is self._cells.running:
                await self._log.call("kernel.interrupt")

    async def _replace(self, wish: _Restart | None) -> None:
        """Restart the kernel: because somebody asked, or (None) because a cell did not stop."""
        epoch = self.epoch
        self._is_replaced = True
        try:
            entered = epoch_of(await self._log.call("kernel.restart"))
            if self.epoch == epoch:  # no new link has found it restarted already
                if wish is None and self._cells.running is not None:
                    self._cells.end_overdue(self._cells.running)
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

    def _enter(self, epoch: int, reason: str) -> None:
        """A new process of the same id: end what the old one left and wait for the new one."""
        self._cells.end_all("interrupted", "restarted", reason, "was restarted")
        self._exit = None
        self.epoch = epoch
        self._death = None
        self._dead_at_seq = None
        self._cells.count = 0
        self._started_at = self._active_at = time.time()
        self._is_ready = False
        self._greet_until = 0.0
        self._questions.probe = None
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
            self._die(cause_of(exit_event, is_oom=oom is True))

    def _die(self, reason: str) -> None:
        self._death = reason
        self._cells.end_all("died", "lost", reason, "died")
        self._questions.fail()
        self._is_ready = False
        self._settled.set()
        self._settled = asyncio.Event()

    def _attend(self) -> None:
        self._wake.set()

    # --- what the kernel says

    async def _attached(self) -> None:
        self._wake.set()
        if self._cells.running is not None:
            await self._ask_probe()  # was the request lost with the last link?

    async def _keep_now(self) -> None:
        await self._cells.keeper.keep_and_acknowledge(self._log, force=True)

    def _take(self, message: KernelMessage) -> None:
        self._cells.keeper.note()
        if message.channel == "event":
            self._take_event(message)
        elif message.epoch == self.epoch:
            self._active_at = time.time()
            if not self._questions.take(message):
                self._cells.take(message)
            elif (probe := self._questions.probe) is not None and probe.is_answered:
                self._take_answer(probe)
        self._note_death_if_read()

    def _take_event(self, message: KernelMessage) -> None:
        event, running = message.content, self._cells.running
        match message.msg_type:
            case "exited" if message.epoch == self.epoch and not self._is_replaced:
                self._exit = event
                self._wake.set()
            case "dropped" if running is not None:
                self._cells.lose(size_of(event), "Output was lost while nobody could read it.")
                self._doubt(running)
            case "oversize" if running is not None and running.execution_id == message.parent_id:
                self._cells.lose(size_of(event), "A message was too large to be sent.")
                if event.get("msg_type") == "error":
                    self._cells.take(unsent_error(message))
                self._doubt(running)
            case _:
                pass

    def _note_death_if_read(self) -> None:
        """A process that is gone says nothing more: with the last message its end is known."""
        if self._dead_at_seq is not None and self._log.seq >= self._dead_at_seq:
            self._dead_at_seq = None
            if self._death is None and self._exit is None:
                self._exit = {}
                self._wake.set()

    # --- probes

    def _doubt(self, running: Execution) -> None:
        """What ends the running cell may have been lost: find out."""
        probe = self._questions.probe
        if self._tasks is not None and (probe is None or probe.execution is not running):
            self._tasks.start_soon(self._ask_probe)

    async def _ask_probe(self) -> None:
        try:
            await self._questions.ask_probe(self._cells.running)
        except SandboxError:
            return  # the next link asks again

    def _take_answer(self, probe: Probe) -> None:
        """All that was asked before the probe is done."""
        self._questions.probe = None
        if not self._is_ready:
            self._is_ready = True
            self._settled.set()
            self._settled = asyncio.Event()
            self._wake.set()
        running = self._cells.running
        if running is None or running is not probe.execution:
            return
        if running.was_seen:
            self._cells.conclude(running)
        elif running.is_adopted:
            unrun = "The controller ended before the cell was sent; nothing of it was executed."
            self._cells.end(running, "lost", "kept", unrun)
        else:  # the request went down with the link
            self._cells.put_back(running)
            self._wake.set()

    def _check_alive(self) -> None:
        if self._death is not None:
            raise Conflict(
                f"The kernel {self.kernel_id} is dead. {self._death}",
                remedy="Its variables are lost. Restart it, or start another one.",
            )
