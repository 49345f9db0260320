"""Results of cells as tests make them up."""

from __future__ import annotations

from typing import Any

from sandbox.kernels.models import ExecutionResult


def result(*outputs: dict[str, Any], **fields: Any) -> ExecutionResult:
    """A result with these outputs; of a cell that went well, unless the fields say otherwise."""
    known = {"status": "ok", "state": "kept", **fields}
    return ExecutionResult(
        execution_id="e", session_id="s", kernel_id="k", outputs=list(outputs), **known
    )


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    """An output of text."""
    return {"output_type": "stream", "name": name, "text": text}
