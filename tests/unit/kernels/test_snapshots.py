"""What an execution shows is what another controller carries on from."""

from __future__ import annotations

from typing import Any

from sandbox.kernels.execution import Execution
from sandbox.kernels.messages import KernelMessage
from sandbox.kernels.models import ExecutionRecord, ExecutionResult
from sandbox.outputs.denials import DenialLog


async def _cancel(_execution: Execution) -> None:
    raise AssertionError


def execution(snapshot: ExecutionResult | None = None) -> Execution:
    fields: dict[str, Any] = {"execution_id": "e", "session_id": "s", "kernel_id": "k", "epoch": 1}
    record = ExecutionRecord(
        **fields, submitted_at=0, timeout_s=9, code="", state="running", snapshot=snapshot
    )
    return Execution(record, 16 * 1024, _cancel, DenialLog())


def test_types_that_were_left_out_are_told_now_in_the_end_and_by_the_next_controller() -> None:
    first = execution()
    content = {"data": {"x/y": "v", "text/plain": "words"}}
    assert first.take(KernelMessage(1, 1, "iopub", "display_data", "e", content, b""))
    assert first.snapshot().dropped_types == {"x/y": 1}

    kept = ExecutionResult.model_validate_json(first.snapshot().model_dump_json())
    second = execution(kept)
    assert second.snapshot().dropped_types == {"x/y": 1}
    assert second.snapshot().outputs == first.snapshot().outputs

    second.end("ok", "kept", "")
    assert second.snapshot().dropped_types == {"x/y": 1}


def test_a_snapshot_of_before_types_were_counted_is_read() -> None:
    old = execution().snapshot().model_dump(exclude={"dropped_types"})
    assert ExecutionResult.model_validate(old).dropped_types == {}
