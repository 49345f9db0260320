"""Results of cells as tests make them up."""

from __future__ import annotations

import struct
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


def display(**data: Any) -> dict[str, Any]:
    """An output of a mime bundle; ``image_png`` stands for ``image/png``."""
    named = {key.replace("_", "/", 1): value for key, value in data.items()}
    return {"output_type": "display_data", "data": named, "metadata": {}}


def png(width: int, height: int, size: int = 60) -> bytes:
    """Bytes that begin as a picture of that size in pixels, and are none."""
    head = b"\x89PNG\r\n\x1a\n" + bytes((0, 0, 0, 13)) + b"IHDR" + struct.pack(">II", width, height)
    return head + bytes(max(size - len(head), 0))
