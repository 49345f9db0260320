"""What a model is told of an execution or a command: small, complete in itself, nothing twice.

Some clients hand their model the structured result only, others the content only. So these models
hold every word of the content, and ``sandbox.server.content`` says nothing that is not in them.
What is empty is not sent. The whole of it is at ``execution://ID`` and with ``detail="full"``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, WithJsonSchema

from sandbox.commands.models import CommandResult, CommandStatus
from sandbox.kernels.models import ExecutionError, ExecutionResult, ExecutionStatus, KernelState
from sandbox.outputs import mime
from sandbox.outputs.denials import Denial, denial_line
from sandbox.outputs.plain import utf8_size
from sandbox.outputs.readable import readable
from sandbox.server.pictures import PICTURES, Shown, picture_type

MAX_TEXT = 32 * 1024
"""The characters of an execution's or a command's output that a reader gets."""
MAX_VALUE = 2000
"""The characters of an error's message beside its traceback."""
MAX_RICH = 64
"""The references of one result."""
READ_WHOLE = frozenset(("text/plain", "text/markdown", "text/latex"))
"""The types that are in the text as they are."""

_BARE = re.compile(r"<[^<>\n]*>")
"""The text of an object that has none, such as ``<Figure size 640x480 with 1 Axes>``."""
_GROUP = "Exception Group Traceback (most recent call last):"
_MEMBER = re.compile(r"^ +\| ([^\W\d][\w.]*: .*)$", re.MULTILINE)
"""The line of an exception in the tree of a group."""
_RULER = re.compile(r"\A-+\n(?:\w+ +(?=Traceback \())?")
"""How IPython begins a traceback."""


class Rich(BaseModel, frozen=True):
    """A picture, or a form of an output that is not in the text."""

    type: str
    bytes: int
    width: int = 0
    height: int = 0
    uri: str
    """Of the resource that has it."""


class CellSummary(BaseModel, frozen=True):
    """An execution as it is now, or as it ended; what is empty is left out."""

    execution_id: str
    session_id: str
    kernel_id: str
    status: ExecutionStatus
    state: KernelState
    """Of the kernel's variables."""
    reason: str = ""
    next: str = ""
    """What to do now."""
    error: dict[str, str] = Field(default_factory=dict[str, str])
    """Its name and value, and those of a group's exceptions; the traceback is in the text."""
    text: str
    """All that there is to read, in the order in which it happened."""
    rich: list[Rich] = Field(default_factory=list[Rich])
    denials: list[str] = Field(default_factory=list[str])
    """What the network policy refused meanwhile."""
    truncated_bytes: int = 0
    left_out: list[str] = Field(default_factory=list[str])
    """What is missing, and how to get it."""
    notes: list[str] = Field(default_factory=list[str])
    execution_count: int = 0
    duration_s: float = 0.0
    outputs: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    """In nbformat 4, with detail="full"."""
    exit_code: Annotated[int | None, WithJsonSchema({"type": "integer"})] = None
    late: list[str] = Field(default_factory=list[str])
    """What earlier cells wrote after their end, and which."""
    cell_id: str = ""
    """Of the cell of a notebook that it ran."""
    cell_index: int = -1


class CommandSummary(BaseModel, frozen=True):
    """A command as it is now, or how it ended; what is empty is left out."""

    command_id: str
    session_id: str
    status: CommandStatus
    exit_code: Annotated[int | None, WithJsonSchema({"type": "integer"})] = None
    """Of one that exited."""
    signal: int = 0
    """That ended it, if one did."""
    reason: str = ""
    next: str = ""
    """What to do now."""
    stdout: str
    """Its head and tail when it was long."""
    stderr: str
    denials: list[str] = Field(default_factory=list[str])
    """What the network policy refused meanwhile."""
    truncated_bytes: int = 0
    left_out: list[str] = Field(default_factory=list[str])
    """What is missing, and how to get it."""
    notes: list[str] = Field(default_factory=list[str])
    duration_s: float = 0.0


def cell_summary(
    result: ExecutionResult,
    shown: Sequence[Shown] = (),
    *,
    notes: Iterable[str] = (),
    max_text: int = MAX_TEXT,
    sent: ExecutionResult | None = None,
) -> CellSummary:
    """What is told of an execution.

    Args:
        shown: Its pictures, and how each is shown.
        notes: What else there is to say of the call.
        sent: The same with the outputs that are sent as they are; None when none are.
    """
    whole = _text(result, shown)
    text, missing = _cut_out(whole, _allowed(whole, max_text))
    left_out = [*_left_out(result), *_not_shown(shown)]
    if sent and sent.truncated_bytes > result.truncated_bytes:
        left_out.append(
            f"{sent.truncated_bytes - result.truncated_bytes:,} bytes did not fit into this "
            f"answer: the resource {uri_of(result.execution_id)} has them"
        )
    elif missing and not sent:
        left_out.append(
            f"{len(missing):,} characters of the text were left out: "
            f"get_execution(execution_id={result.execution_id!r}, detail='full') answers more"
        )
    rich = list(_rich(result, shown))
    if more := rich[MAX_RICH:]:
        left_out.append(
            f"{len(more)} more rich forms are not listed: the resource "
            f"{uri_of(result.execution_id)} has all"
        )
    error = result.error
    return CellSummary(
        execution_id=result.execution_id,
        session_id=result.session_id,
        kernel_id=result.kernel_id,
        status=result.status,
        state=result.state,
        reason=result.reason or "",
        next=_next(result),
        error=_told_error(error) if error else {},
        text=text,
        rich=rich[:MAX_RICH],
        denials=_denials(result.denials),
        truncated_bytes=result.truncated_bytes,
        left_out=left_out,
        notes=[*filter(None, (result.going_on,)), *notes],
        execution_count=result.execution_count or 0,
        duration_s=round(result.duration_s, 3),
        outputs=sent.outputs if sent else [],
        exit_code=result.exit_code,
        late=[each.words(uri_of(each.execution_id)) for each in result.late],
    )


def _told_error(error: ExecutionError) -> dict[str, str]:
    told = {"name": error.name, "value": shortened(error.value, MAX_VALUE)}
    if _GROUP in error.traceback:
        whole = f"{error.name}: {error.value}"
        found = [each for each in _MEMBER.findall(error.traceback) if each != whole]
        told["exceptions"] = shortened("; ".join(found), MAX_VALUE)
    return told


def command_summary(
    result: CommandResult, *, notes: Iterable[str] = (), max_text: int = MAX_TEXT
) -> CommandSummary:
    """What is told of a command."""
    stderr, less = _cut_out(result.stderr, max(max_text // 2, max_text - len(result.stdout)))
    stdout, more = _cut_out(result.stdout, max(max_text // 2, max_text - len(stderr)))
    missing = utf8_size(less) + utf8_size(more) + result.truncated_bytes
    left_out = [
        f"{missing:,} bytes of output were left out: get_command(command_id="
        f"{result.command_id!r}, detail='full') answers more, and a file that it writes holds all"
    ]
    asking = f"get_command(command_id={result.command_id!r}, wait=30) answers what comes, "
    return CommandSummary(
        command_id=result.command_id,
        session_id=result.session_id,
        status=result.status,
        exit_code=result.exit_code,
        signal=result.signal or 0,
        reason=result.reason or "",
        next=f"{asking}stop_command ends it" if result.status == "running" else "",
        stdout=stdout,
        stderr=stderr,
        denials=_denials(result.denials),
        truncated_bytes=missing,
        left_out=left_out if missing else [],
        notes=list(notes),
        duration_s=round(result.duration_s, 3),
    )


def is_rich(output: dict[str, Any]) -> bool:
    """Whether an output has markup or data, of which making a text may take a while."""
    data = cast("dict[str, Any]", output.get("data") or {})
    return any(name not in READ_WHOLE and name not in PICTURES for name in data)


def shortened(value: str, limit: int = MAX_TEXT) -> str:
    """A text of at most about ``limit`` characters: its head and tail, with the cut stated."""
    return _cut_out(value, limit)[0]


def _allowed(value: str, limit: int) -> int:
    """How many characters of a text are at most so many, and no more than twice as many bytes."""
    return min(limit, len(value) * 2 * limit // max(utf8_size(value), 1))


def _cut_out(value: str, limit: int) -> tuple[str, str]:
    """A text shortened, and what is left out of it."""
    if len(value) <= limit:
        return value, ""
    head, tail = limit * 2 // 3, len(value) - limit // 3
    missing = value[head:tail]
    said = f"\n[… {len(missing)} characters left out …]\n"
    return f"{value[:head]}{said}{value[tail:]}", missing


def uri_of(execution_id: str, output: int | None = None) -> str:
    """Of the resource that has an execution, or one of its outputs."""
    return f"execution://{execution_id}" + ("" if output is None else f"/outputs/{output}")


def _next(result: ExecutionResult) -> str:
    if result.status == "running":
        return (
            f"get_execution(execution_id={result.execution_id!r}, wait=30) answers what comes, "
            "interrupt_kernel stops it"
        )
    back = ""
    if result.checkpoint and result.status not in ("ok", "lost"):
        named = f"name={result.checkpoint!r}, kernel_id={result.kernel_id!r}"
        back = f"rollback_kernel({named}) goes back to before the cell"
    if result.state == "restarted":
        gone = "the kernel was restarted, so its variables are gone: "
        return f"{gone}{back or 'run again what made them'}"
    if result.state == "rolled_back":
        return "the kernel's variables are those of the checkpoint"
    if result.state == "lost":
        anew = "restart_kernel starts it anew" * (result.status == "died")
        ways = ", ".join(filter(None, (back, anew)))
        return f"the kernel's variables are lost{f': {ways}' if ways else ''}"
    return back


def _denials(denials: Iterable[Denial]) -> list[str]:
    return [denial_line(denial) for denial in denials]


def _left_out(result: ExecutionResult) -> list[str]:
    found = [
        f"{kind} cannot be shown{f' ({times} times)' if times > 1 else ''}: save it to a file and "
        "download that, or show it in another form"
        for kind, times in result.dropped_types.items()
    ]
    return [_cut(result.truncated_bytes), *found] if result.truncated_bytes else found


def _not_shown(shown: Sequence[Shown]) -> list[str]:
    """Which pictures are not shown, why, and how to get them."""
    numbers: dict[str, list[int]] = {}
    for each in shown:
        if each.why_not:
            numbers.setdefault(each.why_not, []).append(each.picture.number)
    return [
        f"picture{'s' * (len(which) > 1)} {_counted(which)} not shown, for {why}: save to a file "
        "and download that, or read its resource"
        for why, which in numbers.items()
    ]


def _counted(numbers: Sequence[int]) -> str:
    """Numbers in few words: ``1``, ``1 and 4``, ``2 to 12``."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _cut(size_bytes: int) -> str:
    return (
        f"{size_bytes:,} bytes of output were left out: show less, or write it to a file and read "
        "parts of that"
    )


def output_texts(outputs: Sequence[dict[str, Any]], shown: Sequence[Shown]) -> list[str]:
    """What there is to read of each output."""
    by_output = {each.picture.output: each for each in shown}
    return [_words(output, by_output.get(index)) for index, output in enumerate(outputs)]


def _text(result: ExecutionResult, shown: Sequence[Shown] = ()) -> str:
    """What it wrote and showed, and the traceback at its end."""
    outputs = result.outputs
    texts = output_texts(outputs, shown)
    if result.error is not None and not any(o.get("output_type") == "error" for o in outputs):
        cause = f"{result.error.name}: {result.error.value}"
        texts.append(_cause_first(cause, result.error.traceback))
    return "".join(texts).strip("\n")


def _words(output: dict[str, Any], shown: Shown | None) -> str:
    kind = output.get("output_type")
    if kind == "stream":
        return _joined(output.get("text"))
    if kind == "error":
        lines: Any = output.get("traceback") or ()
        cause = f"{output.get('ename')}: {output.get('evalue')}"
        return _cause_first(cause, "\n".join(map(str, lines)))
    data = cast("dict[str, Any]", output.get("data") or {})
    said = readable(data).strip("\n")
    if own := picture_type(output):
        said = "" if _BARE.fullmatch(said) else said
        marker = shown.marker() if shown else f"[{own}]"
        return "\n".join(filter(None, (said, marker))) + "\n"
    return (said or ", ".join(f"[{name}, not shown]" for name in data)) + "\n"


def _cause_first(cause: str, traceback: str) -> str:
    """An error for a reader who may see no more of it than its beginning."""
    where = _RULER.sub("", traceback.strip("\n")).removesuffix(cause).rstrip()
    return f"{shortened(cause, MAX_VALUE)}\n{where}".rstrip() + "\n"


def _rich(result: ExecutionResult, shown: Sequence[Shown]) -> Iterable[Rich]:
    """References to what is not in the text, in order."""
    by_output = {each.picture.output: each for each in shown}
    for index, output in enumerate(result.outputs):
        uri = uri_of(result.execution_id, index)
        own = picture_type(output)
        if each := by_output.get(index):
            picture = each.picture
            yield Rich(
                type=picture.mime,
                bytes=picture.size_bytes,
                width=picture.width,
                height=picture.height,
                uri=uri,
            )
        data = cast("dict[str, Any]", output.get("data") or {})
        for name, value in data.items():
            if name != own and name not in READ_WHOLE:
                yield Rich(type=name, bytes=mime.size(value), uri=uri)


def _joined(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownArgumentType]  # JSON
