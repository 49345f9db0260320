"""How a cell has ended that its kernel is done with, and why."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.kernels.models import ExecutionStatus

INPUT_REASON = (
    "The cell asked for input, which nobody can give here: put the values into the code instead."
)
LOST_REASON = "The kernel finished the cell, but its end was not recorded."


def verdict(
    reply: str | None,
    error: Mapping[str, str] | None,
    *,
    over: str,
    interrupted: bool,
    asked_input: bool,
) -> tuple[ExecutionStatus, str]:
    """Status and reason of a cell after which the kernel goes on.

    A cell that was interrupted may have taken the interrupt with its last step: it then has
    neither reply nor error.

    Args:
        reply: The status in its reply; None without one.
        over: That its time was over, in words, if it was interrupted for that.
    """
    if reply is None and error is not None:
        reply = "error"
    elif reply is None and (over or interrupted):
        reply = "aborted"
    if reply is None:
        return "lost", LOST_REASON
    failed = reply != "ok"
    name = error.get("ename") if error else None
    stopped = failed and name in ("KeyboardInterrupt", None)
    if over:
        how = "" if stopped else ", which it handled itself"
        return "timeout", f"{over} It was interrupted{how}."
    if stopped and asked_input:
        return "interrupted", INPUT_REASON
    if stopped and interrupted:
        return "interrupted", "The cell was interrupted on request."
    if failed and name is None:
        return "interrupted", "The kernel gave the cell up."
    if failed:
        return "error", INPUT_REASON if name == "StdinNotImplementedError" else ""
    return "ok", ""
