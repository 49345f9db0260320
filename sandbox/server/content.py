"""What a reader sees of a result: its text, how it stands, its pictures.

All of it is in the structured result, too. Both travel in one message, which clients bound (the
official Python client refuses a server-sent event above 1 MiB), so what is too much is left out and
the result says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent
from pydantic import BaseModel

from sandbox.kernels.models import ExecutionResult
from sandbox.outputs.denials import Denial, denial_line
from sandbox.server.pictures import Shown
from sandbox.server.results import CellSummary, CommandSummary, shortened, uri_of

MAX_STRUCTURED_BYTES = 256 * 1024
"""Of outputs that are sent as they are."""


def told(
    summary: BaseModel, content: Iterable[str | ContentBlock], *, failed: bool = False
) -> CallToolResult:
    """A tool's answer: what is not empty of the model as structured content, and what a reader
    sees."""
    return CallToolResult(
        content=[
            TextContent(type="text", text=each) if isinstance(each, str) else each
            for each in content
        ],
        structured_content=summary.model_dump(mode="json", exclude_defaults=True),
        is_error=failed,
    )


def cell_content(
    summary: CellSummary, shown: Sequence[Shown] = (), *, links: bool = False
) -> list[str | ContentBlock]:
    """The readable form of an execution: what it wrote and showed, what earlier ones did since, how
    it stands, its pictures.

    Args:
        links: Whether what is not shown as it was is linked to.
    """
    said = [summary.text] if summary.text else []
    pictures = [
        ImageContent(type="image", data=each.data, mime_type=each.mime)
        for each in shown
        if each.data
    ]
    originals = [
        ResourceLink(
            type="resource_link",
            name=f"picture {each.picture.number}",
            uri=uri_of(summary.execution_id, each.picture.output),
            mime_type=each.picture.mime,
            size=each.picture.size_bytes,
        )
        for each in shown
        if links and (each.how or each.why_not)
    ]
    late = ["\n".join(summary.late)] if summary.late else []
    return [*said, *late, _tail(summary, cell_line(summary)), *pictures, *originals]


def command_content(summary: CommandSummary) -> list[str | ContentBlock]:
    """The readable form of a command: what it wrote, and how it stands."""
    said: list[str | ContentBlock] = [summary.stdout.rstrip("\n")] if summary.stdout else []
    if summary.stderr:
        said.append(f"stderr:\n{summary.stderr.rstrip()}")
    return [*said, _tail(summary, _command_line(summary))]


def denial_content(denials: Sequence[Denial]) -> list[str]:
    """What the network policy refused, a line for each; nothing when it refused nothing."""
    return ["\n".join(f"[{denial_line(denial)}]" for denial in denials)] if denials else []


def cell_line(summary: CellSummary) -> str:
    """How an execution stands, in one line that says what to do next."""
    is_kept = summary.state == "kept" and summary.status in ("error", "interrupted", "timeout")
    state = "variables are kept" if is_kept else ""
    return _line(summary, summary.status, state, _place(summary))


def _place(summary: CellSummary) -> str:
    """Where in a notebook it is; empty for what is in none."""
    if not summary.cell_id:
        return ""
    gone = f"cell id {summary.cell_id}, which is deleted by now"
    return f"cell {summary.cell_index}, id {summary.cell_id}" if summary.cell_index >= 0 else gone


def _command_line(summary: CommandSummary) -> str:
    how = {
        "exited": f"exit code {summary.exit_code}",
        "signalled": f"killed by signal {summary.signal}",
        "timeout": "timed out and was killed with everything it started",
        "stopped": "stopped with everything it started",
    }.get(summary.status, summary.status)
    return _line(summary, how)


def _line(summary: CellSummary | CommandSummary, how: str, state: str = "", place: str = "") -> str:
    ended = f"{how} after {summary.duration_s:.2f} s"
    parts = (ended, summary.reason.rstrip("."), state, place)
    return "; ".join(filter(None, (*parts, summary.next)))


def _tail(summary: CellSummary | CommandSummary, line: str) -> str:
    lines = (*summary.denials, *summary.left_out, *summary.notes, line)
    return "\n".join(f"[{each}]" for each in lines)


def fitting(result: ExecutionResult) -> ExecutionResult:
    """The result with outputs that fit into one message.

    The largest values give way first: of a text the middle is cut, other data are removed. What
    went is counted in ``truncated_bytes``.
    """
    excess = _size(result.outputs) - MAX_STRUCTURED_BYTES
    if excess <= 0:
        return result
    outputs = [_copied(output) for output in result.outputs]
    left_out = 0
    for holder, key in sorted(_places(outputs), key=lambda place: -_size(place[0][place[1]])):
        if excess <= 0:
            break
        before = _size(holder[key])
        is_text = key in ("text", "traceback") or key.startswith("text/")
        kept = _cut(holder[key], before, before - excess) if is_text else None
        if kept is None:
            del holder[key]
        else:
            holder[key] = kept
        saved = before - (0 if kept is None else _size(kept))
        excess -= saved
        left_out += saved
    first = 0
    while excess > 0:  # a great many small outputs: the last ones say how it ended
        saved = _size(outputs[first])
        first += 1
        excess -= saved
        left_out += saved
    truncated_bytes = result.truncated_bytes + left_out
    return result.model_copy(
        update={"outputs": outputs[first:], "truncated_bytes": truncated_bytes}
    )


def _places(outputs: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """Where large values may be: the texts of streams, and the values of mime bundles."""
    found: list[tuple[dict[str, Any], str]] = []
    for output in outputs:
        if "data" in output:
            found += [(output["data"], mime) for mime in output["data"]]
        elif "text" in output:
            found.append((output, "text"))
        elif "traceback" in output:
            found.append((output, "traceback"))
    return found


def _copied(output: dict[str, Any]) -> dict[str, Any]:
    return {**output, "data": dict(output["data"])} if "data" in output else dict(output)


def _cut(value: Any, size: int, allowed: int) -> Any:
    """A text cut to about the allowed size; None for what cannot be cut."""
    if isinstance(value, list):
        value = "\n".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # JSON
        return [_cut(value, size, allowed)]
    if not isinstance(value, str):
        return None
    return shortened(value, max(len(value) * allowed // size - 64, 1024))


def _size(value: Any) -> int:
    """The bytes that a value takes in a message, where other than ASCII is escaped."""
    return len(json.dumps(value))
