"""What came of an execution, put into the cell of a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from sandbox.kernels.models import ExecutionRecord, ExecutionResult
from sandbox.notebooks.models import Cell

ERROR_NAMES = {
    "timeout": "CellTimeoutError",
    "died": "DeadKernelError",
    "lost": "ExecutionLost",
    "interrupted": "KeyboardInterrupt",
}
"""What an end that is no error of the code is called in its cell: as nbclient calls it."""
LEFT_OUT = "[its outputs are left out: those of the notebook are larger than may be]\n"


def filled(
    cell: Cell, record: ExecutionRecord, result: ExecutionResult, *, has_room: bool = True
) -> Cell:
    """A cell with what came of it.

    Args:
        has_room: Whether its outputs can be in the notebook; else only its errors are.
    """
    outputs = [_untransient(output) for output in result.outputs]
    if not has_room:
        errors = [output for output in outputs if output["output_type"] == "error"]
        outputs = [stream("stderr", LEFT_OUT), *errors]
    told = ERROR_NAMES.get(result.status)
    if told and (result.status != "interrupted" or result.error is None):
        reason = reason_of(result)
        about = {"ename": told, "evalue": reason, "traceback": [f"{told}: {reason}"]}
        outputs.append({"output_type": "error", **about})
    metadata = {**cell.metadata, "execution": timing(record.started_at, result.duration_s)}
    if about := _about(result):
        said = metadata.get("sandbox")  # whoever edits may have put anything there
        known = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
        metadata["sandbox"] = {**known, **about}
    return replace(
        cell,
        outputs=tuple(outputs),
        execution_count=result.execution_count,
        metadata=metadata,
    )


def stream(name: str, text: str) -> dict[str, Any]:
    """An output that a program wrote."""
    return {"output_type": "stream", "name": name, "text": text}


def timing(started_at: float | None, duration_s: float) -> dict[str, str]:
    """When something began and ended, as nbclient calls the messages that say so.

    Args:
        started_at: Unix time; None for what has not begun.
    """
    if started_at is None:
        return {}
    begin, end = (
        datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for at in (started_at, started_at + duration_s)
    )
    return {
        "iopub.status.busy": begin,
        "iopub.execute_input": begin,
        "shell.execute_reply": end,
        "iopub.status.idle": end,
    }


def reason_of(result: ExecutionResult) -> str:
    """Why an execution ended as it did, in words."""
    if result.reason:
        return result.reason
    if result.error is not None:
        return f"{result.error.name}: {result.error.value}"
    return f"It ended as {result.status}."


def _about(result: ExecutionResult) -> dict[str, Any]:
    """What a reader of the notebook should know of a cell that its outputs do not say."""
    told: dict[str, Any] = {}
    if result.status not in ("ok", "error"):
        told |= {"status": result.status, "state": result.state, "reason": result.reason or ""}
    if result.truncated_bytes:
        told["truncated_bytes"] = result.truncated_bytes
    if result.dropped_types:
        told["dropped_types"] = result.dropped_types
    if result.denials:
        told["denials"] = [denial.model_dump(mode="json") for denial in result.denials]
    return told


def _untransient(output: Mapping[str, Any]) -> dict[str, Any]:
    """An output without the display's id, which is of the running kernel only."""
    if "display_id" not in output.get("metadata", ()):
        return dict(output)
    kept = {name: value for name, value in output["metadata"].items() if name != "display_id"}
    return {**output, "metadata": kept}
