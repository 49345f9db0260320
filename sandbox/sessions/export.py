"""A session's history as a notebook that runs again: what its kernels and commands did, in order.

It is made from the journal, also after the session's end, as long as that keeps it. The cells are
for one kernel: Python's where that has run anything, and then what bash and commands did are cells
of ``%%bash``. A cell that failed is tagged so that the notebook goes on when it is run again; one
that did not end by itself, or that this kernel cannot run, is tagged to be skipped.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from heapq import merge
from typing import Any, Literal

import anyio.lowlevel
from pydantic import ValidationError

from sandbox.commands.models import CommandRecord, CommandResult
from sandbox.kernels.kernels import DEFAULT_KERNEL_NAME
from sandbox.kernels.models import ExecutionRecord, ExecutionResult
from sandbox.notebooks.models import RAISES, SKIP, Cell, Notebook
from sandbox.outputs.redaction import Redactor
from sandbox.sessions.cellresults import LEFT_OUT, filled, stream, timing
from sandbox.sessions.journal import Journal
from sandbox.sessions.models import SessionInfo
from sandbox.sessions.retention import KEEP_FINISHED_PER_SESSION
from sandbox.sessions.rows import Run

MAX_ASKED_BYTES = 4 * 1024 * 1024
"""Of the code of executions, and as much of commands; the latest are kept."""
MAX_RESULT_BYTES = 8 * 1024 * 1024
"""Of what came of executions, and as much of commands; the latest are kept."""
MAX_NAMED = 8
"""The kernels that are named at the top."""
_LANGUAGES = {DEFAULT_KERNEL_NAME: "python"}
_TAGS = {"ok": "", "error": RAISES}
"""By how an execution ended; what ended otherwise is skipped."""


@dataclass(frozen=True, slots=True)
class _Ran:
    """An execution or a command."""

    at: float
    """Unix time at which it was asked for."""
    cell: Cell
    kernel_name: str
    """What can run it: ``bash`` for a command."""
    kernel_id: str = ""
    """Empty for a command."""


async def export_of(journal: Journal, info: SessionInfo, redactor: Redactor) -> Notebook:
    """The history of a session, of which this is known, without its secrets.

    Raises:
        InfrastructureError: The journal cannot be read.
    """
    names = {kernel.kernel_id: kernel.name for kernel in info.kernels}
    executions, fewer = await _read(
        journal, "executions", info.session_id, lambda run: _execution(run, names)
    )
    commands, less = await _read(journal, "commands", info.session_id, _command)
    ran = [*merge(executions, commands, key=lambda each: each.at)]
    used = {each.kernel_name for each in executions}
    main = used.pop() if len(used) == 1 else DEFAULT_KERNEL_NAME
    top = Cell("about", "markdown", _about(info, ran, fewer or less))
    metadata = {
        "kernelspec": {"name": main, "display_name": main, "language": _LANGUAGES.get(main, main)},
        "sandbox": {
            "session_id": info.session_id,
            "policy": info.policy,
            "policy_digest": info.policy_digest,
            "image": info.image,
        },
    }
    cells = [replace(cell, source=redactor.text(cell.source)) for cell in _for_kernel(ran, main)]
    return Notebook((top, *cells), metadata)


async def _read(
    journal: Journal,
    table: Literal["executions", "commands"],
    session_id: str,
    made: Callable[[Run], _Ran],
) -> tuple[list[_Ran], bool]:
    """What ran, the oldest first, and whether there was more before or between."""
    ran: list[_Ran] = []
    rows = 0
    for run in journal.runs(
        table, session_id, asked_bytes=MAX_ASKED_BYTES, result_bytes=MAX_RESULT_BYTES
    ):
        await anyio.lowlevel.checkpoint()
        rows += 1
        if run.record is not None:
            with suppress(ValidationError):  # of another version: whoever asks for it is told
                ran.append(made(run))
    return ran[::-1], len(ran) < rows or rows >= KEEP_FINISHED_PER_SESSION


# --- one cell each


def _execution(run: Run, names: Mapping[str, str]) -> _Ran:
    """An execution; the names are those of kernels of which it does not say it itself."""
    record = ExecutionRecord.model_validate_json(run.record or "")
    name = record.kernel_name or names.get(record.kernel_id, DEFAULT_KERNEL_NAME)
    cell = Cell(
        record.execution_id, "code", record.code, {"sandbox": {"kernel_id": record.kernel_id}}
    )
    result = run.result and ExecutionResult.model_validate_json(run.result)
    if result:
        cell = filled(cell, record, result)
    elif not run.has_room:
        cell = replace(cell, outputs=(stream("stderr", LEFT_OUT),))
    status = result.status if result else "running" if run.has_room else "error"
    return _Ran(record.submitted_at, _tagged(cell, _TAGS.get(status, SKIP)), name, record.kernel_id)


def _command(run: Run) -> _Ran:
    record = CommandRecord.model_validate_json(run.record or "")
    words = record.command
    lines = [words if isinstance(words, str) else shlex.join(words)]
    if record.cwd:
        lines.insert(0, f"cd -- {shlex.quote(record.cwd)} || exit")
    about: dict[str, Any] = {"command_id": record.command_id}
    result = run.result and CommandResult.model_validate_json(run.result)
    outputs: list[dict[str, Any]] = []
    tag = SKIP if run.has_room else RAISES
    if result:
        about |= {"status": result.status, "exit_code": result.exit_code}
        shown = (("stdout", result.stdout), ("stderr", result.stderr))
        outputs = [stream(name, text) for name, text in shown if text]
        if result.status == "exited":
            tag = RAISES if result.exit_code else ""
    elif not run.has_room:
        outputs = [stream("stderr", LEFT_OUT)]
    metadata = {
        "sandbox": about,
        "execution": timing(record.started_at, result.duration_s if result else 0.0),
    }
    cell = Cell(record.command_id, "code", "\n".join(lines), metadata, tuple(outputs))
    return _Ran(record.started_at, _tagged(cell, tag), "bash")


def _for_kernel(ran: Iterable[_Ran], main: str) -> Iterator[Cell]:
    """The cells as the kernel of the notebook runs them."""
    for each in ran:
        if each.kernel_name == main:
            yield each.cell
        elif each.kernel_name == "bash" and main == DEFAULT_KERNEL_NAME:
            yield replace(each.cell, source=f"%%bash\n{each.cell.source}")
        else:
            yield _tagged(each.cell, SKIP)


def _tagged(cell: Cell, tag: str) -> Cell:
    if not tag or tag in cell.tags:
        return cell
    return replace(cell, metadata={**cell.metadata, "tags": [*sorted(cell.tags), tag]})


# --- the first cell


def _about(info: SessionInfo, ran: list[_Ran], is_part: bool) -> str:
    opened = datetime.fromtimestamp(info.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [
        f"# Session {info.name or info.session_id}",
        "",
        f"Opened {opened} under the policy `{info.policy}` with the image `{info.image}`.",
        "What its kernels and commands ran is here in order. Not here are files that were written "
        "by tools, what was typed into terminals, and the input and variables of commands.",
    ]
    kernels = list(dict.fromkeys(each.kernel_id for each in ran if each.kernel_id))
    if len(kernels) > 1:
        named = ", ".join(kernels[:MAX_NAMED]) + (", …" if len(kernels) > MAX_NAMED else "")
        lines += [
            "",
            f"It ran in {len(kernels)} kernels ({named}), each with variables of its own; run "
            "again it is one.",
        ]
    if is_part:
        lines += ["", "It had run more before, which is no longer kept or has no room here."]
    return "\n".join(lines)
