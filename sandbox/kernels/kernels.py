"""All kernels of one session."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping

import anyio
from anyio.abc import TaskGroup

from sandbox.denials import DenialLog
from sandbox.errors import (
    Conflict,
    InfrastructureError,
    InvalidRequest,
    LinkLost,
    NotFound,
    QuotaExceeded,
)
from sandbox.kernels.answers import (
    KERNEL_ID,
    KERNEL_NAME,
    MAX_LISTED,
    Info,
    Listed,
    Listing,
    completion,
    inspection,
    parse,
)
from sandbox.kernels.cells import OomProbe, Surroundings
from sandbox.kernels.execution import Execution
from sandbox.kernels.kernel import Kernel
from sandbox.kernels.messages import Messages, new_id
from sandbox.kernels.models import (
    Completion,
    ExecutionJournal,
    ExecutionRecord,
    Inspection,
    KernelInfo,
    KernelSpec,
    KernelState,
)
from sandbox.kernels.recent import Recent
from sandbox.link import Link
from sandbox.policy.models import Limits
from sandbox.redaction import Redactor

DEFAULT_KERNEL_ID = "k-default"
DEFAULT_KERNEL_NAME = "python3"
GRACE_S = 5.0
MAX_CODE_BYTES = 1024 * 1024
_EXECUTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

logger = logging.getLogger(__name__)


class Kernels:
    """The kernels of one session and what they execute; :meth:`run` must be running.

    Args:
        session_id: The session's.
        limits: The policy's.
        journal: Where executions outlive the controller.
        denials: What the session's network policy refuses, for the results of executions.
        admit: Called before a cell is queued; raises when its caller has run enough.
        redactor: Knows the session's secrets, which no output shows.
        oom_probe: Asked when a kernel dies for no stated reason: whether the container ran out of
            memory, None when that is not known.
        grace_s: How long a cell may take to heed an interrupt before its kernel is restarted.
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
        oom_probe: OomProbe | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._session_id = session_id
        self._limits = limits
        self._journal = journal
        self._recent = Recent()
        self._denials = denials or DenialLog()
        self._admit = admit
        self._redactor = redactor
        self._around = Surroundings(
            session_id, limits, journal, Messages(), self._recent, grace_s, oom_probe
        )
        self._kernels: dict[str, Kernel] = {}
        self._link: Link | None = None
        self._is_adopted = False
        self._is_closed = False
        self._tasks: TaskGroup | None = None
        self._is_running = asyncio.Event()

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
                kernel.keep()

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
                kernel.keep()
        if lost:
            self._abandon(lost)
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    async def attach(self, link: Link) -> None:
        """Go on over this link; the first time, take over what an earlier controller left.

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
            resumed = self._resume(entries)
        for kernel_id, kernel in tuple(self._kernels.items()):
            if kernel_id not in entries:
                kernel.forgotten()
        for entry in listed:
            kernel = self._kernels.get(entry.kernel_id)
            if kernel is None and len(self._kernels) >= MAX_LISTED:
                continue  # made up, by a supervisor that lists other ones over each link
            if kernel is None:
                kernel = Kernel(entry.kernel_id, entry.name, self._around, entry.epoch)
                kernel.adopt(resumed.get(entry.kernel_id))
                self._kernels[entry.kernel_id] = kernel
                kernel.attach(link, entry.epoch, entry.last_seq, is_alive=entry.alive)
                self._serve(kernel)
            else:
                kernel.attach(link, entry.epoch, entry.last_seq, is_alive=entry.alive)

    # --- kernels

    async def start(self, name: str = DEFAULT_KERNEL_NAME, kernel_id: str = "") -> KernelInfo:
        """Start another kernel and wait until it answers.

        Args:
            name: Of its kernelspec.
            kernel_id: Its id; a new one when empty.

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

    async def list(self) -> list[KernelInfo]:
        """All kernels, dead ones too."""
        return list(self.infos)

    async def kernelspecs(self) -> dict[str, KernelSpec]:
        """The kinds of kernels that can be started, by name."""
        if self._link is None:
            raise LinkLost("There is no link to the sandbox at the moment.", remedy="Try again.")
        return parse(Info, await self._link.call("info")).kernelspecs

    async def interrupt(self, kernel_id: str = "") -> KernelInfo:
        """Interrupt what a kernel runs; harmless when it runs nothing."""
        kernel = self._get(kernel_id)
        await kernel.interrupt()
        return kernel.info()

    async def restart(self, kernel_id: str = "") -> KernelInfo:
        """Restart a kernel, dead or alive, and wait until it answers."""
        kernel = self._get(kernel_id)
        await kernel.restart()
        return kernel.info()

    async def stop(self, kernel_id: str = "") -> KernelInfo:
        """Stop a kernel for good and return it as it was last."""
        kernel = self._get(kernel_id)
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
    ) -> Execution:
        """Put a cell at the end of a kernel's queue.

        Args:
            code: The cell.
            kernel_id: Which kernel; the default one, started on first use, when empty.
            timeout_s: How long it may run, in seconds; the policy's limit when None, never more.
            execution_id: Its id; a new one when None.

        Raises:
            InvalidRequest: The code is too long or not a text.
            NotFound: There is no such kernel.
            Conflict: The kernel is dead; it is never replaced silently.
            QuotaExceeded: Too many cells wait already, or a quota of the caller's is used up.
        """
        _check_code(code)
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
            session_id=self._session_id,
            kernel_id=kernel.kernel_id,
            epoch=kernel.epoch,
            submitted_at=time.time(),
            timeout_s=min(timeout_s or limit_s, limit_s),
            code=code,
            state="queued",
        )
        execution = self._execution(record)
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
        result = self._journal.result(self._session_id, execution_id)
        if result is None:
            raise NotFound(f"There is no execution {execution_id!r:.80}.")
        return Execution.ended(result)

    async def complete(
        self, code: str, cursor_pos: int | None = None, kernel_id: str = ""
    ) -> Completion:
        """What can stand at the cursor.

        Args:
            code: The text around it.
            cursor_pos: Where it is, in characters; at the end when None.
            kernel_id: Which kernel; the default one when empty.

        Raises:
            Conflict: The kernel is busy or dead.
        """
        position = _check_position(code, cursor_pos)
        kernel = await self._ready(kernel_id)
        asked = {"code": code, "cursor_pos": position}
        answer = await kernel.ask("complete_request", asked)
        return completion(answer, len(code), position)

    async def inspect(
        self,
        code: str,
        cursor_pos: int | None = None,
        detail_level: int = 0,
        kernel_id: str = "",
    ) -> Inspection:
        """What the kernel knows about the name at the cursor.

        Args:
            code: The text around it.
            cursor_pos: Where it is, in characters; at the end when None.
            detail_level: 1 also asks for the source.
            kernel_id: Which kernel; the default one when empty.

        Raises:
            Conflict: The kernel is busy or dead.
        """
        position = _check_position(code, cursor_pos)
        kernel = await self._ready(kernel_id)
        asked = {"code": code, "cursor_pos": position, "detail_level": int(detail_level > 0)}
        answer = await kernel.ask("inspect_request", asked)
        return inspection(answer, self._limits.output_bytes)

    # --- inside

    def _find(self, execution_id: str) -> Execution | None:
        for kernel in self._kernels.values():
            for execution in kernel.executions():
                if execution.execution_id == execution_id:
                    return execution
        return self._recent.get(execution_id)

    def _get(self, kernel_id: str) -> Kernel:
        kernel = self._kernels.get(kernel_id or DEFAULT_KERNEL_ID)
        if kernel is None:
            named = f" {kernel_id!r:.80}" if kernel_id else " yet"
            raise NotFound(f"There is no kernel{named}.", remedy="List or start kernels.")
        return kernel

    async def _ready(self, kernel_id: str) -> Kernel:
        """A kernel that answers; the default one is started if need be."""
        if kernel_id or DEFAULT_KERNEL_ID in self._kernels:
            kernel = self._get(kernel_id)
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

    def _new(self, name: str, kernel_id: str) -> Kernel:
        if self._link is None:
            raise LinkLost("There is no link to the sandbox at the moment.", remedy="Try again.")
        if len(self._kernels) >= self._limits.kernels:
            raise QuotaExceeded(
                f"The session has {len(self._kernels)} kernels, as many as its policy allows.",
                remedy="Stop one first.",
            )
        kernel = self._kernels[kernel_id] = Kernel(kernel_id, name, self._around)
        kernel.use(self._link)
        self._serve(kernel)
        return kernel

    def _serve(self, kernel: Kernel) -> None:
        if self._tasks is None:
            raise InfrastructureError("The session is closed.")
        self._tasks.start_soon(self._run, kernel)

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

    def _resume(self, entries: Mapping[str, Listed]) -> dict[str, Execution]:
        """Take over the executions of an earlier controller that still run; end the others."""
        resumed: dict[str, Execution] = {}
        for record in self._journal.unfinished(self._session_id):
            entry = entries.get(record.kernel_id)
            if entry is None:
                self._end(record, "lost", "The kernel is gone.")
            elif record.state == "queued":
                unrun = "The controller ended before this cell ran; nothing of it was executed."
                self._end(record, "kept" if entry.alive else "lost", unrun)
            elif record.epoch != entry.epoch or record.kernel_id in resumed:
                self._end(record, "restarted", "The kernel was restarted under the cell.")
            else:
                resumed[record.kernel_id] = self._execution(record)
        return resumed

    def _abandon(self, reason: str) -> None:
        """End what only the journal knows of."""
        for record in self._journal.unfinished(self._session_id):
            self._end(record, "lost", reason)

    def _end(self, record: ExecutionRecord, state: KernelState, reason: str) -> None:
        execution = self._execution(record)
        execution.end("lost", state, reason)
        self._journal.finished(record.execution_id, execution.snapshot(), record.seq)
        self._recent.add(execution)

    def _execution(self, record: ExecutionRecord) -> Execution:
        return Execution(
            record, self._limits.output_bytes, self._cancel, self._denials, self._redactor
        )

    async def _cancel(self, execution: Execution) -> None:
        kernel = self._kernels.get(execution.record.kernel_id)
        if kernel is not None:
            await kernel.cancel(execution)


def _check_code(code: str) -> None:
    try:
        size = len(code.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise InvalidRequest("The code holds characters that UTF-8 cannot express.") from exc
    if size > MAX_CODE_BYTES:
        raise InvalidRequest(
            f"The code is {size:,} bytes long; {MAX_CODE_BYTES:,} is the most.",
            remedy="Write the data into a file and read it in the code.",
        )


def _check_position(code: str, position: int | None) -> int:
    _check_code(code)
    if position is None:
        return len(code)
    if not 0 <= position <= len(code):
        raise InvalidRequest(f"The cursor must be between 0 and {len(code)}.")
    return position
