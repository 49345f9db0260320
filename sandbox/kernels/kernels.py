"""All kernels of one session."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

import anyio
from anyio.abc import TaskGroup

from sandbox.answers import linked, parse
from sandbox.bulkheads.overruns import Overruns
from sandbox.errors import Conflict, InfrastructureError, InvalidRequest, NotFound, QuotaExceeded
from sandbox.kernels.answers import (
    KERNEL_ID,
    KERNEL_NAME,
    MAX_LISTED,
    Info,
    Listed,
    Listing,
    completeness,
    completion,
    inspection,
)
from sandbox.kernels.branches import Branches
from sandbox.kernels.code import check_code, check_position, normalized
from sandbox.kernels.events import KernelEvents
from sandbox.kernels.execution import Execution
from sandbox.kernels.kernel import Kernel
from sandbox.kernels.messages import CellOptions, new_id
from sandbox.kernels.models import (
    Completeness,
    Completion,
    ExecutionJournal,
    ExecutionRecord,
    Inspection,
    KernelInfo,
    KernelSpec,
)
from sandbox.kernels.resumption import abandon, resume
from sandbox.kernels.shared import OomProbe, SharedByKernels
from sandbox.link.link import Link
from sandbox.outputs.denials import DenialLog
from sandbox.outputs.redaction import Redactor
from sandbox.policy.models import Limits

DEFAULT_KERNEL_ID = "k-default"
DEFAULT_KERNEL_NAME = "python3"
GRACE_S = 5.0
_EXECUTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

logger = logging.getLogger(__name__)


class Kernels:
    """The kernels of one session and what they execute; :meth:`run` must be running.

    Args:
        admit: Called before a cell is queued; raises when its caller has run enough.
        oom_probe: Asked when a kernel dies for no stated reason: whether the container ran out of
            memory, None when that is not known.
    """

    def __init__(
        self,
        session_id: str,
        limits: Limits,
        journal: ExecutionJournal,
        *,
        denials: DenialLog | None = None,
        admit: Callable[[], None] = lambda: None,
        redactor: Redactor | None = None,
        overruns: Overruns | None = None,
        oom_probe: OomProbe | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._limits = limits
        self._denials = denials or DenialLog()
        self._admit = admit
        redactor = redactor or Redactor()
        self._shown = redactor.data
        overruns = overruns or Overruns(session_id)
        self._around = SharedByKernels(session_id, journal, redactor, overruns, grace_s, oom_probe)
        self._kernels: dict[str, Kernel] = {}
        self.branches = Branches(limits, self._kernels, self.kernel, self._new, self._started)
        self._link: Link | None = None
        self._is_adopted = False
        self._is_closed = False
        self._tasks: TaskGroup | None = None
        self._is_running = anyio.Event()

    async def run(self) -> None:
        """Serve the kernels until :meth:`aclose`, or until cancelled: then they live on."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._is_running.set()
                if self._is_closed:
                    return
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            for kernel in self._kernels.values():
                kernel.cells.writer.keep()

    async def aclose(self, *, lost: str = "") -> None:
        """Let go of the kernels; may be called twice.

        Args:
            lost: Why they and their executions can never go on. When empty they live on, and what
                they execute is carried on by the next controller.
        """
        self._is_closed = True
        for kernel in tuple(self._kernels.values()):
            if lost:
                kernel.lose(lost)
            else:
                kernel.cells.writer.keep()
        if lost:
            abandon(self._around, self._execution, lost)
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    async def attach(self, link: Link) -> None:
        """Go on over this link; the first time, take over what an earlier controller left. Over the
        same one again, note what others have started, restarted and stopped there.

        Raises:
            LinkLost: The link ended.
            ProtocolError: The supervisor's list of kernels makes no sense.
        """
        await self._is_running.wait()
        listed = parse(Listing, await link.call("kernel.list")).kernels
        self._link = link
        entries = {entry.kernel_id: entry for entry in listed}
        resumed: dict[str, Execution] = {}
        if not self._is_adopted:
            self._is_adopted = True
            resumed = resume(self._around, self._execution, entries)
        for kernel_id, kernel in tuple(self._kernels.items()):
            if kernel_id not in entries:
                kernel.forgotten()
        for entry in listed:
            kernel = self._kernels.get(entry.kernel_id)
            if kernel is not None:
                kernel.attach(link, entry.epoch, entry.last_seq, is_alive=entry.alive)
            elif len(self._kernels) < MAX_LISTED:  # or made up, by one that lists others each time
                self._adopt(entry, link, resumed.get(entry.kernel_id))

    # --- kernels

    async def start(self, name: str = DEFAULT_KERNEL_NAME, kernel_id: str = "") -> KernelInfo:
        """Start another kernel, of a kernelspec, and wait until it answers.

        Raises:
            QuotaExceeded: The policy lets the session have no more kernels.
            NotFound: There is no such kernelspec.
            Conflict: There is a kernel with this id.
        """
        if not re.fullmatch(KERNEL_NAME, name):
            raise NotFound(f"There is no kernelspec {name!r:.80}.", remedy="List the kernelspecs.")
        kernel_id = kernel_id or f"k-{secrets.token_hex(4)}"
        if not re.fullmatch(KERNEL_ID, kernel_id):
            raise InvalidRequest(f"{kernel_id!r:.80} cannot be a kernel's id.")
        if kernel_id in self._kernels:
            raise Conflict(f"There is a kernel {kernel_id} already.")
        return (await self._started(self._new(name, kernel_id))).info()

    @property
    def infos(self) -> tuple[KernelInfo, ...]:
        """All kernels as they are now, dead ones too."""
        return tuple(kernel.info() for kernel in self._kernels.values())

    async def kernelspecs(self) -> dict[str, KernelSpec]:
        """The kinds that can be started, by name."""
        return parse(Info, self._shown(await linked(self._link).call("info"))).kernelspecs

    def events(self, kernel_id: str = "") -> KernelEvents:
        """What a kernel says, for any number of readers."""
        return self.kernel(kernel_id).events

    def kernel(self, kernel_id: str = "") -> Kernel:
        """A kernel itself, dead or alive, for whoever converses with it; ``NotFound`` without."""
        kernel = self._kernels.get(kernel_id or DEFAULT_KERNEL_ID)
        if kernel is None:
            named = f" {kernel_id!r:.80}" if kernel_id else " yet"
            raise NotFound(f"There is no kernel{named}.", remedy="List or start kernels.")
        return kernel

    def ran(self, execution_id: str) -> bool:
        """Whether an execution of this session has that id, as far as memory reaches."""
        return self._find(execution_id) is not None

    async def interrupt(self, kernel_id: str = "") -> KernelInfo:
        """Interrupt what a kernel runs; harmless when it runs nothing."""
        kernel = self.kernel(kernel_id)
        await kernel.interrupt()
        return kernel.info()

    async def restart(self, kernel_id: str = "") -> KernelInfo:
        """Restart a kernel, dead or alive, and wait until it answers."""
        kernel = self.kernel(kernel_id)
        await kernel.restart()
        return kernel.info()

    async def stop(self, kernel_id: str = "") -> KernelInfo:
        """Stop a kernel for good and return it as it was last."""
        kernel = self.kernel(kernel_id)
        await kernel.stop()
        self._forget(kernel)
        return kernel.info()

    # --- cells

    async def execute(
        self,
        code: str,
        *,
        kernel_id: str = "",
        timeout_s: float | None = None,
        execution_id: str | None = None,
        options: CellOptions | None = None,
    ) -> Execution:
        """Put a cell at the end of a kernel's queue; the default one is started on first use.

        Args:
            timeout_s: How long it may run, in seconds; the policy's limit when None, never more.
            options: How it is run; when nobody is to answer its questions, None will do.

        Raises:
            InvalidRequest: The code is too long or not a text.
            NotFound: There is no such kernel.
            Conflict: The kernel is dead; it is never replaced silently.
            QuotaExceeded: Too many cells wait already, or a quota of the caller's is used up.
        """
        check_code(code)
        code = normalized(code)
        limit_s = self._limits.execution_s
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidRequest("The timeout must be more than 0 seconds.")
        execution_id = execution_id or new_id()
        if not _EXECUTION_ID.fullmatch(execution_id) or self._find(execution_id) is not None:
            raise InvalidRequest(f"{execution_id!r:.80} cannot be the id of a new execution.")
        self._admit()
        kernel = await self._ready(kernel_id)
        record = ExecutionRecord(
            execution_id=execution_id,
            session_id=self._around.session_id,
            kernel_id=kernel.kernel_id,
            kernel_name=kernel.name,
            epoch=kernel.epoch,
            submitted_at=time.time(),
            timeout_s=min(timeout_s or limit_s, limit_s),
            code=code,
            state="queued",
        )
        execution = self._execution(record)
        execution.options = options or execution.options
        kernel.submit(execution)
        return execution

    def execution(self, execution_id: str) -> Execution:
        """An execution of this session by its id, ended ones from the journal.

        Raises:
            NotFound: There is none.
        """
        found = self._find(execution_id)
        if found is not None:
            return found
        result = self._around.journal.result(self._around.session_id, execution_id)
        if result is None:
            raise NotFound(f"There is no execution {execution_id!r:.80}.")
        return Execution.ended(result)

    async def complete(
        self, code: str, cursor_pos: int | None = None, kernel_id: str = ""
    ) -> Completion:
        """What can stand at the cursor, which is at the end when no place is given.

        Raises:
            Conflict: The kernel is busy or dead.
        """
        position = check_position(code, cursor_pos)
        kernel = await self._ready(kernel_id)
        asked = {"code": code, "cursor_pos": position}
        answer = await kernel.ask("complete_request", asked)
        with self._around.overruns.section("the kernel's completions"):
            return completion(self._shown(answer), len(code), position)

    async def check(self, code: str, kernel_id: str = "") -> Completeness:
        """Whether code is a whole cell, or more lines must come.

        Raises:
            Conflict: The kernel is busy or dead.
        """
        check_code(code)
        kernel = await self._ready(kernel_id)
        answer = await kernel.ask("is_complete_request", {"code": code})
        return completeness(self._shown(answer))

    async def inspect(
        self, code: str, cursor_pos: int | None = None, detail_level: int = 0, kernel_id: str = ""
    ) -> Inspection:
        """What the kernel knows about the name at the cursor; level 1 also asks for the source.

        Raises:
            Conflict: The kernel is busy or dead.
        """
        position = check_position(code, cursor_pos)
        kernel = await self._ready(kernel_id)
        asked = {"code": code, "cursor_pos": position, "detail_level": int(detail_level > 0)}
        answer = await kernel.ask("inspect_request", asked)
        with self._around.overruns.section("what the kernel knows about a name"):
            return inspection(self._shown(answer), self._limits.output_bytes)

    # --- inside

    def _find(self, execution_id: str) -> Execution | None:
        for kernel in self._kernels.values():
            for execution in kernel.cells:
                if execution.execution_id == execution_id:
                    return execution
        return self._around.recent.get(execution_id)

    async def _ready(self, kernel_id: str) -> Kernel:
        """A kernel that answers; the default one is started if need be."""
        if kernel_id or DEFAULT_KERNEL_ID in self._kernels:
            kernel = self.kernel(kernel_id)
        else:
            kernel = self._new(DEFAULT_KERNEL_NAME, DEFAULT_KERNEL_ID)
        return await self._started(kernel)

    async def _started(self, kernel: Kernel) -> Kernel:
        """Wait until a kernel answers; one that could not be started is forgotten."""
        try:
            await kernel.wait_ready()
        finally:
            if kernel.failure is not None:
                self._forget(kernel)
        return kernel

    def _new(self, name: str, kernel_id: str, **origin: Any) -> Kernel:
        link = linked(self._link)
        if len(self._kernels) >= self._limits.kernels:
            raise QuotaExceeded(
                f"The session has {len(self._kernels)} kernels, as many as its policy allows.",
                remedy="Stop one first.",
            )
        return self._serve(self._made(kernel_id, name, link=link, **origin))

    def _adopt(self, entry: Listed, link: Link, running: Execution | None) -> None:
        """Take over a kernel of an earlier controller, with what it runs."""
        last = min(entry.first_seq - 1, entry.last_seq) if running is None else running.record.seq
        stand = {"branch_of": entry.branch_of, "epoch": entry.epoch, "last_seq": last}
        kernel = self._made(entry.kernel_id, entry.name, link=link, **stand)
        if running is not None:
            kernel.cells.adopt(running)
        kernel.attach(link, entry.epoch, entry.last_seq, is_alive=entry.alive)
        self._serve(kernel)

    def _made(self, kernel_id: str, name: str, **more: Any) -> Kernel:
        return Kernel(kernel_id, name, self._around, before_cell=self.branches.before_cell, **more)

    def _serve(self, kernel: Kernel) -> Kernel:
        self._kernels[kernel.kernel_id] = kernel
        if self._tasks is None:
            raise InfrastructureError("The session is closed.")
        self._tasks.start_soon(self._run, kernel)
        return kernel

    async def _run(self, kernel: Kernel) -> None:
        try:
            await kernel.run()
        except Exception:  # the outermost edge of a kernel: the session's others go on
            logger.exception("kernel %s failed", kernel.kernel_id)
            kernel.lose("The controller failed to serve this kernel.")
        if kernel.failure is not None:
            self._forget(kernel)

    def _forget(self, kernel: Kernel) -> None:
        if self._kernels.get(kernel.kernel_id) is kernel:  # and not its successor of that id
            del self._kernels[kernel.kernel_id]

    def _execution(self, record: ExecutionRecord) -> Execution:
        return Execution(
            record, self._limits.output_bytes, self._cancel, self._denials, self._around.redactor
        )

    async def _cancel(self, execution: Execution) -> None:
        kernel = self._kernels.get(execution.record.kernel_id)
        if kernel is not None:
            await kernel.runner.cancel(execution)
