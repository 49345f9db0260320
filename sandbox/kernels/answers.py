"""What supervisors and kernels answer, checked before anybody believes it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import Field, StringConstraints

from sandbox.answers import Answer
from sandbox.errors import InfrastructureError
from sandbox.kernels.evidence import full_at
from sandbox.kernels.models import Completeness, Completion, Inspection, KernelSpec
from sandbox.outputs.plain import clip, plain

KERNEL_ID = r"^k-[a-z0-9]{1,32}$"
KERNEL_NAME = r"^[A-Za-z0-9._-]{1,100}$"
CHECKPOINT_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MAX_LISTED = 256
MAX_NAMES = 10
MAX_NAME = 200
MAX_MATCHES = 500
MAX_MATCH = 1000
MAX_INDENT = 64
MAX_COMMANDS = 5
MAX_COMMAND = 200
OUT_OF_MEMORY = "It was killed because the sandbox ran out of memory."


class Listed(Answer):
    """A kernel as the supervisor lists it."""

    kernel_id: Annotated[str, StringConstraints(pattern=KERNEL_ID)]
    name: Annotated[str, StringConstraints(pattern=KERNEL_NAME)]
    epoch: Annotated[int, Field(gt=0, lt=2**31)]
    alive: bool
    last_seq: Annotated[int, Field(ge=0, lt=2**63)]
    first_seq: Annotated[int, Field(ge=1, lt=2**63)] = 1
    """The oldest message that it still has."""
    branch_of: Annotated[str, StringConstraints(pattern=f"{KERNEL_ID}|^$")] = ""
    """The kernel that it is a branch of."""


class Frozen(Answer):
    """A checkpoint as the supervisor tells of it."""

    name: Annotated[str, StringConstraints(pattern=CHECKPOINT_NAME)]
    created_at: Annotated[float, Field(ge=0, lt=2**40)]
    memory_bytes: Annotated[int, Field(ge=0, lt=2**50)]
    files: bool = False
    alive: bool = True


Names = Annotated[list[str], Field(max_length=MAX_NAMES)]
Count = Annotated[int, Field(ge=0, lt=2**40)]


class FilesKept(Answer):
    """What a snapshot of files tells of those that it does not have as they were."""

    changing: Names = Field(default_factory=list[str])
    changing_count: Count = 0
    left_out: Names = Field(default_factory=list[str])
    left_out_count: Count = 0

    def notes(self) -> tuple[str, ...]:
        """The same in words."""
        changing = "neither as before nor as after, perhaps, as they were written to meanwhile"
        left_out = "not kept, as FIFOs, sockets and other filesystems are not"
        return (
            *_noted(self.changing_count, changing, self.changing),
            *_noted(self.left_out_count, left_out, self.left_out),
        )


class FilesBack(Answer):
    """What is told of files that were put back."""

    lost: Names = Field(default_factory=list[str])
    lost_count: Count = 0

    def notes(self) -> tuple[str, ...]:
        """The same in words."""
        return _noted(self.lost_count, "gone, as FIFOs and sockets do not come back", self.lost)


def _noted(count: int, what: str, names: list[str]) -> tuple[str, ...]:
    if not count:
        return ()
    shown = ", ".join(plain(name[:MAX_NAME]) for name in names[:count])
    verb = "is" if count == 1 else "are"
    more = ", …" if count > len(names) else ""
    return (f"Of the files {count:,} {verb} {what}: {shown}{more}.",)


class FrozenListing(Answer):
    """The answer to ``kernel.checkpoints``."""

    checkpoints: Annotated[list[Frozen], Field(max_length=MAX_LISTED)]


class Listing(Answer):
    """The answer to ``kernel.list``."""

    kernels: Annotated[list[Listed], Field(max_length=MAX_LISTED)]


class Info(Answer):
    """The part of the answer to ``info`` that is about kernels."""

    kernelspecs: Annotated[
        dict[Annotated[str, StringConstraints(pattern=KERNEL_NAME)], KernelSpec],
        Field(max_length=MAX_LISTED),
    ]


def epoch_of(answer: Mapping[str, Any]) -> int:
    """The epoch in the answer to a start or restart."""
    epoch = answer.get("epoch")
    if type(epoch) is not int or not 0 < epoch < 2**31:
        raise InfrastructureError("The supervisor did not say which epoch the kernel is in.")
    return epoch


def size_of(event: Mapping[str, Any]) -> int:
    """The bytes that an event speaks of; 0 when it does not say."""
    size = event.get("bytes")
    return size if type(size) is int and 0 <= size < 2**50 else 0


def count_of(event: Mapping[str, Any]) -> int:
    """How many processes an event or answer speaks of; 0 when it does not say."""
    number = event.get("processes")
    return number if type(number) is int and 0 <= number < 2**22 else 0


def going_on_in(event: Mapping[str, Any]) -> str:
    """Which processes an event says a cell has left running, in words; empty when none."""
    raw = event.get("commands")
    listed = cast("list[Any]", raw)[:MAX_COMMANDS] if isinstance(raw, list) else []
    found = [cast("dict[str, Any]", each) for each in listed if isinstance(each, dict)]
    told = [
        f"{plain(command[:MAX_COMMAND])!r} (pid {pid})"
        for each in found
        if type(pid := each.get("pid")) is int and 0 < pid < 2**22
        if isinstance(command := each.get("command"), str)
    ]
    if not told:
        return ""
    more = count_of(event) - len(told)
    return f"goes on in the background: {', '.join(told)}" + (f" and {more} more" * (more > 0))


def exit_code_in(event: Mapping[str, Any]) -> int | None:
    """The code with which a process has exited; None when it did not, or nobody knows."""
    code = event.get("exit_code")
    return code & 0xFF if type(code) is int else None


def processes_of(event: Mapping[str, Any]) -> str:
    """How many processes an event speaks of, in words."""
    number = count_of(event)
    return "1 process" if number == 1 else f"{number} processes"


def cause_of(event: Mapping[str, Any], *, is_oom: bool) -> str:
    """Why a kernel has exited, in words, and what ended with it."""
    count = count_of(event)
    verb = "was" if count == 1 else "were"
    left = f" {processes_of(event)} that it had left {verb} ended." if count else ""
    return _cause(event, is_oom=is_oom) + left


def _cause(event: Mapping[str, Any], *, is_oom: bool) -> str:
    if is_oom:
        return OUT_OF_MEMORY
    number, code = event.get("signal"), exit_code_in(event)
    if type(number) is int and 0 < number < 65:
        names = {known.value: known.name for known in signal.Signals}
        full = full_at(event) if number == signal.SIGBUS else ()
        why = f": {' and '.join(full)} {'is' if len(full) == 1 else 'are'} full" if full else ""
        return f"It was ended by {names.get(number, f'signal {number}')}{why}."
    if code is not None:
        return f"It exited with code {code}: something ended the whole process, as os._exit does."
    return "Its process is gone, for a reason that is not known."


def completion(reply: Mapping[str, Any], size: int, position: int) -> Completion:
    """Read the content of a ``complete_reply`` to code of ``size`` characters."""
    raw = reply.get("matches")
    matches = cast("list[Any]", raw)[:MAX_MATCHES] if isinstance(raw, list) else []
    texts = [plain(match[:MAX_MATCH]) for match in matches if isinstance(match, str)]
    start, end = (
        at if type(at) is int and 0 <= at <= size else position
        for at in (reply.get("cursor_start"), reply.get("cursor_end"))
    )
    return Completion(matches=texts, cursor_start=min(start, end), cursor_end=end)


def completeness(reply: Mapping[str, Any]) -> Completeness:
    """Read the content of an ``is_complete_reply``."""
    for status in ("complete", "incomplete", "invalid"):
        if reply.get("status") == status:
            indent = reply.get("indent")
            if not isinstance(indent, str) or indent.strip(" \t"):
                indent = ""
            return Completeness(status=status, indent=indent[:MAX_INDENT])
    return Completeness(status="unknown")


def inspection(reply: Mapping[str, Any], limit_bytes: int) -> Inspection:
    """Read an ``inspect_reply``, of which ``limit_bytes`` of text are kept."""
    data = reply.get("data")
    text = cast("dict[str, Any]", data).get("text/plain") if isinstance(data, dict) else None
    shown = clip(plain(clip(text, 2 * limit_bytes)), limit_bytes) if isinstance(text, str) else ""
    return Inspection(found=reply.get("found") is True, text=shown)
