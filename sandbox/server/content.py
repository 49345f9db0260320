"""What a reader sees of an execution: its text, its pictures, and how it ended.

The structured result holds everything as nbformat outputs; this is the same for eyes. Both travel
in one message, which clients bound (the official Python client refuses a server-sent event above
1 MiB), so pictures and then long texts are left out when the whole would not fit, and the result
says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mcp_types import ContentBlock, ImageContent

from sandbox.commands.models import CommandResult
from sandbox.kernels.models import ExecutionResult
from sandbox.outputs.denials import Denial, denial_line
from sandbox.outputs.readable import readable

MAX_TEXT = 32 * 1024
"""The characters of an execution's output that a reader gets; the structured result has more."""
MAX_IMAGES_BYTES = 384 * 1024
"""Of all pictures of one result together, as base64."""
MAX_STRUCTURED_BYTES = 384 * 1024
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


def execution_content(result: ExecutionResult) -> list[str | ContentBlock]:
    """The readable form of an execution: what it wrote and showed, then how it stands."""
    blocks: list[str | ContentBlock] = []
    texts: list[str] = []
    room = MAX_IMAGES_BYTES
    for output in result.outputs:
        picture = _picture(output)
        if picture is None:
            texts.append(_words(output))
        elif len(picture.data) > room:
            texts.append(
                f"[{picture.mime_type}, {len(picture.data) * 3 // 4} bytes: too large to show. "
                "Save it to a file and download that, or make it smaller.]\n"
            )
        else:
            room -= len(picture.data)
            _flush(texts, blocks)
            blocks.append(picture)
    if result.error is not None and not any(
        o.get("output_type") == "error" for o in result.outputs
    ):
        texts.append(result.error.traceback or f"{result.error.name}: {result.error.value}\n")
    _flush(texts, blocks)
    return [*blocks, *denial_content(result.denials), f"[{execution_line(result)}]"]


def denial_content(denials: Sequence[Denial]) -> list[str]:
    """What the network policy refused, a line for each; nothing when it refused nothing."""
    return ["\n".join(f"[{denial_line(denial)}]" for denial in denials)] if denials else []


def execution_line(result: ExecutionResult) -> str:
    """How an execution stands, in one line that says what to do next."""
    asking = f"get_execution(execution_id={result.execution_id!r}, wait=30) answers what comes, "
    state = ""
    if result.state == "restarted":
        state = "the kernel was restarted, so its variables are gone"
    elif result.state == "lost":
        state = "the kernel's state is lost"
    elif result.status in ("error", "interrupted", "timeout"):
        state = "variables are kept"
    return standing(result, result.status, f"{asking}interrupt_kernel stops it", state)


def standing(
    result: ExecutionResult | CommandResult, how: str, when_running: str, state: str = ""
) -> str:
    """How an execution or a command stands, in one line."""
    parts = [f"{how} after {result.duration_s:.2f} s", (result.reason or "").rstrip(".")]
    parts += [when_running if result.status == "running" else "", state]
    if result.truncated_bytes:
        parts.append(f"{result.truncated_bytes} bytes of output were left out")
    return "; ".join(filter(None, parts))


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


def shortened(value: str, limit: int = MAX_TEXT) -> str:
    """A text of at most about ``limit`` characters: its head and tail, with the cut stated."""
    if len(value) <= limit:
        return value
    head, tail = limit * 2 // 3, limit // 3
    return f"{value[:head]}\n[… {len(value) - head - tail} characters left out …]\n{value[-tail:]}"


def _flush(texts: list[str], blocks: list[str | ContentBlock]) -> None:
    whole = "".join(texts)
    texts.clear()
    if whole.strip("\n"):
        blocks.append(shortened(whole.rstrip("\n")))


def _picture(output: dict[str, Any]) -> ImageContent | None:
    data: dict[str, Any] = output.get("data") or {}
    for mime in PICTURES:
        value = data.get(mime)
        if isinstance(value, str):
            return ImageContent(type="image", data="".join(value.split()), mime_type=mime)
    return None


def _words(output: dict[str, Any]) -> str:
    kind = output.get("output_type")
    if kind == "stream":
        return _joined(output.get("text"))
    if kind == "error":
        lines: Any = output.get("traceback") or ()
        return "\n".join(map(str, lines)) + "\n"
    data: dict[str, Any] = output.get("data") or {}
    text = readable(data).rstrip("\n")
    return (
        f"{text}\n" if text else "".join(f"[{mime}, in the structured outputs]\n" for mime in data)
    )


def _joined(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownArgumentType]  # JSON


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
