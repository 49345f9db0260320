"""One kernel: its life, and what takes it from one state to another.

One task, :meth:`Kernel._work`, decides that; another, the pump of the present link, reads messages
and only notes what they say. A link may end at any time: the kernel runs on, and the next link
goes on after the last message read.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from sandbox.errors import NotFound, SandboxError
from sandbox.kernels.answers import cause_of
from sandbox.kernels.attachment import Attachment
from sandbox.kernels.busy import dead
from sandbox.kernels.cells import Cells
from sandbox.kernels.checkpoints import Checkpoints
from sandbox.kernels.events import KernelEvents
from sandbox.kernels.evidence import evidence_of
from sandbox.kernels.execution import Execution
from sandbox.kernels.hearing import Hearing
from sandbox.kernels.messages import MAX_HEADER, KernelMessage
from sandbox.kernels.models import PYTHON, KernelInfo
from sandbox.kernels.origins import Origins
from sandbox.kernels.questions import Questions
from sandbox.kernels.replacement import Replacement, Replacing
from sandbox.kernels.runner import START_TIMEOUT_S, Runner
from sandbox.kernels.shared import SharedByKernels
from sandbox.link.link import Link

BeforeCell = Callable[["Kernel", Execution], Awaitable[None]]


class Kernel:
    """A kernel of a session; :meth:`run` must be running.

    Args:
        before_cell: Called before each cell is sent to it.
        branch_of: The kernel that it is, or is to be, a branch of; empty for none.
        reseed: Whether its random numbers as a branch are to be others.
        epoch: Of a kernel that runs already; 0 for one that is to be started.
        last_seq: The number of its last message that an earlier controller has in the journal.
    """

    def __init__(
        self,
        kernel_id: str,
        name: str,
        around: SharedByKernels,
        *,
        link: Link,
        before_cell: BeforeCell,
        branch_of: str = "",
        reseed: bool = True,
        epoch: int = 0,
        last_seq: int = 0,
    ) -> None:
        self.kernel_id = kernel_id
        self.branch_of, self._reseed = branch_of, reseed
        self.name = name
        self.epoch = epoch
        self.failure: SandboxError | None = None
        """Why it could not be started."""
        self.events = KernelEvents(around.redactor, around.budget, last_seq)
        """What it says, for any number of readers."""
        self.origins = Origins()
        """Who has asked what, of those who converse with it."""
        self.self_description: Mapping[str, Any] | None = None
        """What it says of itself, without secrets; None before it has."""
        self._around = around
        self._started_at = self._active_at = time.time()
        self._is_closed = False
        self._is_ready = bool(epoch)
        self._death: str | None = None
        self._exit: Mapping[str, Any] | None = None
        self._dead_at_seq: int | None = None
        self._before_cell = before_cell
        self._replacing = Replacing(kernel_id)
        self._link = Attachment(
            kernel_id,
            link,
            self.events,
            around.overruns,
            self._take,
            lambda: self.cells.writer.keep_and_acknowledge(self._link, force=True),
        )
        self.checkpoints = Checkpoints(self._link)
        self.cells = Cells(kernel_id, around, self.events, self._attend)
        self.evidence = partial(evidence_of, self._link)
        """Asks what can be seen of why its last cell failed."""
        self._questions = Questions(self.cells, around.messages, self._link.send)
        self.runner = Runner(self.cells, self._questions, self._link, around)
        self._hearing = Hearing(self, self.cells, self._questions, around)
        self._wake = anyio.Event()
        """Set, and replaced, when there may be something to decide."""
        self._settled = anyio.Event()
        """Set, and replaced, when it has become ready or has died."""
        self._tasks: TaskGroup | None = None

    def info(self) -> KernelInfo:
        """The kernel as it is now."""
        state = "busy" if self.cells.running or self.cells.waiting else "idle"
        state = "dead" if self._death is not None else state if self._is_ready else "starting"
        return KernelInfo(
            session_id=self._around.session_id,
            kernel_id=self.kernel_id,
            name=self.name,
            state=state,
            queue_length=self.cells.waiting,
            execution_count=self.cells.count,
            started_at=self._started_at,
            last_activity_at=self._active_at,
            reason=self._death,
            branch_of=self.branch_of,
        )

    async def run(self) -> None:
        """Serve the kernel until it is stopped."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            if self.epoch:
                self._pump()
            tasks.start_soon(self.cells.writer.run, self._link)
            try:
                await self._work()
            finally:
                self.events.log.finish()

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
        """Put a cell at the end of the queue, unless the kernel is dead or too many wait."""
        self._check_alive()
        self.cells.put(execution, runs_at_once=self._is_ready)
        self._active_at = time.time()

    async def interrupt(self) -> None:
        """Interrupt the running cell; harmless when none runs.

        Raises:
            Conflict: The kernel is dead.
            LinkLost: The link ended before that was confirmed.
        """
        self._check_alive()
        if self.cells.running is not None:
            await self.runner.cancel(self.cells.running)

    async def restart(self) -> None:
        """Restart it, dead or alive: nothing of its state stays, and no cell of its queue runs."""
        await self._have(Replacement())

    async def roll_back(self, name: str) -> tuple[str, ...]:
        """Put it back, dead or alive, to one of its checkpoints; no cell of its queue runs.
        Returns what of files is not as it was then, in words.

        Raises:
            Conflict: It cannot be put back, or is being restarted.
            NotFound: There is no such checkpoint.
        """
        return (await self._have(Replacement(name, self.checkpoints.count_of(name)))).notes

    async def stop(self) -> None:
        """Stop it for good; ``LinkLost`` when the link ended before that was confirmed."""
        with self._replacing.under_way(Replacement()), suppress(NotFound):
            await self._link.call("kernel.stop")  # the supervisor may have forgotten it before
        reason = "The kernel was stopped on request."
        self.cells.end_all("interrupted", "lost", reason, "was stopped")
        self.close(reason)

    def close(self, reason: str) -> None:
        """Let go of it: whoever waits for it gets a ``Conflict``; executions stay as they are."""
        self._is_closed = True
        self._death = self._death or reason
        self._questions.fail()
        self._settle()
        self.events.log.finish()
        self._replacing.give_up()
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    def lose(self, reason: str) -> None:
        """The container is gone: nothing of this kernel can go on."""
        self.cells.end_all("lost", "lost", reason, "was lost")
        self.close(reason)

    async def ask(self, msg_type: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask something that it answers between cells; ``Conflict`` while one runs."""
        await self.wait_ready()
        return await self._questions.ask(msg_type, content)

    async def say(self, msg_type: str, content: bytes, msg_id: str, **more: Any) -> None:
        """Send it a message as it is, once it answers: see :meth:`Messages.request`.

        Raises:
            Conflict: It is dead.
            LinkLost: The link ended.
        """
        await self.wait_ready()
        await self._link.send(self._around.messages.request(msg_type, content, msg_id, **more))

    def attach(self, link: Link, epoch: int, last_seq: int, *, is_alive: bool) -> None:
        """Go on over a link, new or not, whose other end says how the kernel stands."""
        if self._is_closed:
            return
        is_same = self._link.link is link and self._link.is_attached
        self._link.link = link
        if self.epoch and epoch != self.epoch:
            if self.cells.running is not None and self.cells.running.expired:
                self.cells.end_overdue()
            self._enter(epoch, self._replacing.found)
        self.epoch = epoch
        self._dead_at_seq = None if is_alive else last_seq
        if not is_same:
            self._pump()
        self._note_death_if_read()
        self._attend()

    def forgotten(self) -> None:
        """The supervisor does not know it any more."""
        if self.epoch and self._death is None:
            self._note_exit({})

    async def _work(self) -> None:
        while True:
            self._wake = anyio.Event()
            delay_s = await self._step()
            with anyio.move_on_after(delay_s):
                await self._wake.wait()

    async def _step(self) -> float | None:
        """Do what is next; returns after how many seconds something is due, if that is known."""
        if not self.epoch:
            return await self._start()
        if self._exit is not None:
            await self._bury(self._exit)
        if (wish := self._replacing.take()) is not None:
            await self._replace(wish)
        if self._death is not None or not self._link.is_attached:
            return None
        if not self._is_ready:
            if self.runner.has_waited_in_vain:
                self._die(f"It did not answer within {START_TIMEOUT_S:g} s of its start.")
                return None
            return await self.runner.greet()
        if self.cells.running is None and (cell := self.cells.next) is not None:
            await self._before_cell(self, cell)
            await self.runner.begin(self.epoch)
        running = self.cells.running
        if running is None:
            return None
        delay_s = await self.runner.watch(running)
        if running.is_overdue:
            await self._replace(Replacement(is_overdue=True))
        return delay_s

    async def _start(self) -> None:
        try:
            epoch = await self._link.start(self.name, self.branch_of, reseed=self._reseed)
        except SandboxError as exc:
            if self.epoch:
                return  # the next link found that it had been started
            self.failure = exc
            reason = f"The kernel did not start: {exc.message}"
            self.cells.end_all("lost", "lost", reason, "failed to start")
            self.close("It did not start.")
            return
        if not self.epoch:
            self._pump()
        self.epoch = epoch

    async def _have(self, wish: Replacement) -> Replacement:
        if self._is_closed:
            self._check_alive()
        done = await self._replacing.have(wish, self._attend)
        await self.wait_ready()
        return done

    async def _replace(self, wish: Replacement) -> None:
        epoch = self.epoch
        with self._replacing.under_way(wish):
            entered = await wish.ask(self._link)
            if entered and self.epoch == epoch:  # no new link has found it replaced already
                self._enter(entered, wish)
            elif wish.death:
                self._die(wish.death)
            elif wish.error is not None and wish.exit is not None:
                self._note_exit(wish.exit)

    def _enter(self, epoch: int, replacement: Replacement) -> None:
        """A new process of the same id: end what the old one left and wait for the new one."""
        replacement.end(self.cells)
        self._exit = None
        self.epoch = epoch
        self._death = None
        self._dead_at_seq = None
        self._started_at = self._active_at = time.time()
        self._is_ready = False
        self.runner.forget()
        self._believe()
        self._attend()

    async def _bury(self, exit_event: Mapping[str, Any]) -> None:
        """The process has exited by itself: say why."""
        is_oom = await self._around.ran_out_of_memory(exit_event)
        if self._exit is exit_event:  # it was not restarted meanwhile
            self._exit = None
            self._die(cause_of(exit_event, is_oom=is_oom))

    def _die(self, reason: str) -> None:
        self._death = reason
        self.cells.end_all("died", "lost", reason, "died")
        self._questions.fail()
        self._is_ready = False
        self._settle()

    def _attend(self) -> None:
        self._wake.set()

    def _settle(self) -> None:
        self._settled.set()
        self._settled = anyio.Event()

    def _pump(self) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self._link.pump, self._link.link, self._attached)

    def _believe(self) -> None:
        """Of our own kernels the supervisor tells when they are ready; is more to be asked?"""
        is_known = self.name == PYTHON and self.self_description is not None
        if is_known and self._link.is_attached and self._death is None:
            self.answers()

    async def _attached(self) -> None:
        self._believe()
        self._attend()
        if self.cells.running is not None:
            await self.runner.probe()  # was the request lost with the last link?

    def _take(self, message: KernelMessage) -> None:
        if message.epoch == self.epoch:
            self._active_at = time.time()
            if message.msg_type == "kernel_info_reply" and len(message.data) <= MAX_HEADER:
                self.self_description = self._around.redactor.data(message.content)
        if message.channel == "event" and message.msg_type == "checkpoint_lost":
            self.checkpoints.doubt()
        self._hearing.take(message)
        self._note_death_if_read()

    def exited(self, event: Mapping[str, Any]) -> None:
        """Its process has ended: was that wanted?"""
        if (replacement := self._replacing.current) is None:
            self._note_exit(event)
        else:
            replacement.exit = event

    def answers(self) -> None:
        """It has answered a probe, so it is ready."""
        if not self._is_ready:
            self._is_ready = True
            self._settle()
            self._attend()

    def doubt(self, running: Execution) -> None:
        """What ends the running cell may be lost: find out."""
        probe = self._questions.probe
        if self._tasks is not None and (probe is None or probe.execution is not running):
            self._tasks.start_soon(self.runner.probe)

    def _note_exit(self, event: Mapping[str, Any]) -> None:
        self._exit = event
        self._attend()

    def _note_death_if_read(self) -> None:
        """A process that is gone says nothing more: with the last message its end is known."""
        if self._dead_at_seq is not None and self.events.log.end >= self._dead_at_seq:
            self._dead_at_seq = None
            if self._death is None and self._exit is None:
                self._note_exit({})

    def _check_alive(self) -> None:
        if self._death is not None:
            raise dead(self.kernel_id, self._death, self.checkpoints.latest)
