"""The values that kernels give to callers and to the journal."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, Field, StringConstraints

from sandbox.outputs.denials import Denial

PYTHON = "python3"
"""The kernelspec of our own kernels, which alone can be copied."""
ExecutionStatus = Literal["ok", "error", "interrupted", "timeout", "died", "lost", "running"]
KernelState = Literal["kept", "restarted", "rolled_back", "lost"]
"""What became of a kernel's variables; ``rolled_back``: they are those of a checkpoint."""


class ExecutionError(BaseModel, frozen=True):
    """The error that a cell ended in."""

    name: str
    """The exception's class, such as ``ValueError``."""
    value: str
    """Its message."""
    traceback: str
    """As plain text, without escape codes; empty when the kernel gave none."""


class LateOutput(BaseModel, frozen=True):
    """What a cell showed after its end, told with a later cell of its kernel."""

    execution_id: str
    """Of the cell that it came of, whose outputs have all of it."""
    execution_count: int | None = None
    text: str
    truncated_bytes: int = 0
    """The bytes that are not in the text."""

    def words(self, place: str = "") -> str:
        """For a reader: whose it is, the text, and where the rest of it is."""
        count = "" if self.execution_count is None else f"In [{self.execution_count}], "
        whose = f"[output that came after its cell had ended: {count}execution {self.execution_id}]"
        at = f"are in {place}" if place else "are left out"
        more = f"[{self.truncated_bytes:,} bytes more of it {at}]" if self.truncated_bytes else ""
        return "\n".join(filter(None, (whose, self.text, more)))


class ExecutionResult(BaseModel, frozen=True):
    """An execution as it is now, or as it ended."""

    execution_id: str
    session_id: str
    kernel_id: str
    status: ExecutionStatus
    """``running`` also stands for a cell that waits for those before it; ``reason`` says so."""
    state: KernelState
    """What became of the kernel's variables."""
    execution_count: int | None = None
    """The kernel's number for this cell; None when it has not given one."""
    outputs: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    """nbformat 4 outputs, bounded by the policy."""
    error: ExecutionError | None = None
    duration_s: float = 0.0
    """From its start in the kernel; 0 when it has not begun."""
    truncated_bytes: int = 0
    """The bytes of output that were made but are not in ``outputs``."""
    dropped_types: dict[str, int] = Field(default_factory=dict[str, int])
    """How many values of each mime type were left out whole."""
    reason: str | None = None
    """Why it ended so, or what it waits for, in words; None when there is nothing to say."""
    checkpoint: str = ""
    """The one that was made before it; empty when none was."""
    denials: tuple[Denial, ...] = ()
    """What the session's network policy refused from its start to its end; what runs at the same
    time in the session shares it."""
    late: tuple[LateOutput, ...] = ()
    """What earlier cells of the kernel showed after their end, up to the end of this one, and no
    result before this one told of. None of it is in ``outputs``."""
    exit_code: int | None = None
    """With which the cell ended itself or its kernel, or that of the last command of a bash cell;
    None where there is none. Codes of processes have 8 bits of it."""
    going_on: str = ""
    """Which processes the cell has left running, in words; empty when it has left none."""


class ExecutionRecord(BaseModel, frozen=True):
    """What the journal keeps of an execution, so that another controller can carry it on."""

    execution_id: str
    """Also the ``msg_id`` of its Jupyter request."""
    session_id: str
    kernel_id: str
    kernel_name: str = ""
    """Of its kernelspec; empty where an earlier version has noted it."""
    epoch: int
    """Which start of the kernel it belongs to."""
    submitted_at: float
    """Unix time."""
    started_at: float | None = None
    """Unix time at which it was sent to the kernel; None while it waits."""
    timeout_s: float
    """How long it may run."""
    code: str
    state: Literal["queued", "running"]
    checkpoint: str = ""
    """The one that was made before it; empty when none was."""
    begun_seq: int = 0
    """The kernel's last message before it was sent."""
    seq: int = 0
    """The kernel's last message that ``snapshot`` includes."""
    snapshot: ExecutionResult | None = None
    """None as long as there was no progress worth keeping."""

    @classmethod
    def of_ended(cls, result: ExecutionResult) -> ExecutionRecord:
        """What stands for the record of an execution of which only the end is known."""
        return cls(
            execution_id=result.execution_id,
            session_id=result.session_id,
            kernel_id=result.kernel_id,
            epoch=0,
            submitted_at=0,
            timeout_s=0,
            code="",
            state="running",
        )


class ExecutionJournal(Protocol):
    """Where executions outlive the controller. Every method is synchronous and quick."""

    def started(self, record: ExecutionRecord) -> None:
        """Keep a new execution; called again when it leaves the queue and runs."""
        ...

    def progress(self, execution_id: str, snapshot: ExecutionResult, seq: int) -> None:
        """Keep, in one transaction, its outputs so far and the last message in them."""
        ...

    def finished(self, execution_id: str, result: ExecutionResult, seq: int) -> None:
        """Keep how it ended; called again when outputs come after its end."""
        ...

    def unfinished(self, session_id: str) -> list[ExecutionRecord]:
        """The session's executions that have no end yet, oldest first."""
        ...

    def result(self, session_id: str, execution_id: str) -> ExecutionResult | None:
        """An execution of this session as last kept; None when there is none."""
        ...

    def ended(self, session_id: str, execution_id: str) -> ExecutionRecord | None:
        """The record of an execution of this session that has ended, whose snapshot is its end;
        None when there is none."""
        ...


class KernelInfo(BaseModel, frozen=True):
    """A kernel as it is now."""

    kernel_id: str
    name: str
    """Of its kernelspec."""
    state: Literal["starting", "idle", "busy", "dead"]
    queue_length: int
    """The cells that wait; the running one is not among them."""
    execution_count: int
    started_at: float
    """Unix time; of the last start, or of the adoption by this controller."""
    last_activity_at: float
    """Unix time at which it last said something or was given a cell."""
    session_id: str
    reason: str | None = None
    """How it died; None while it lives."""
    branch_of: str = ""
    """The kernel that it was a copy of when it began; empty for one that began anew."""


class Checkpoint(BaseModel, frozen=True):
    """A frozen copy of a kernel, to which the kernel can be rolled back again and again."""

    name: str
    created_at: float
    """Unix time, seconds."""
    memory_bytes: int
    """What it takes by itself; what it shares with the kernel is not counted twice."""
    files: bool = False
    """Whether it has the workspace's files, too."""
    alive: bool = True
    """False for one whose process has ended, so that it is lost."""


class KeptCheckpoint(Checkpoint, frozen=True):
    """A checkpoint that was just made."""

    notes: tuple[str, ...] = ()
    """What is not in it as it was, in words."""


class KernelSpec(BaseModel, frozen=True):
    """A kind of kernel that can be started."""

    display_name: Annotated[str, StringConstraints(max_length=200)]
    language: Annotated[str, StringConstraints(max_length=100)]


class Completion(BaseModel, frozen=True):
    """What can stand at the cursor."""

    matches: list[str]
    cursor_start: int
    """Where the replaced text begins, in characters."""
    cursor_end: int


class Completeness(BaseModel, frozen=True):
    """Whether code is a whole cell."""

    status: Literal["complete", "incomplete", "invalid", "unknown"]
    """``incomplete`` when more lines must come; ``unknown`` when the kernel does not say."""
    indent: str = ""
    """What the next line begins with."""


class Inspection(BaseModel, frozen=True):
    """What the kernel knows about a name."""

    found: bool
    text: str
    """Plain text; empty when nothing is known."""
