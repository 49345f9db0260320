"""How a cell has ended that its kernel is done with, and why."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.kernels.models import ExecutionStatus

INPUT_REASON = (
    "The cell asked for input, which nobody can give here: put the values into the code instead. "
    "A program that must ask can be answered in a terminal."
)
GETPASS_REASON = (
    "The cell asked for a password, which nobody can give here: read it from an environment "
    "variable or a file instead, as which secrets of the policy come."
)
DEBUGGER_REASON = (
    "The cell started a debugger, which nobody can type into here: print what you want to see, or "
    "catch the error and look at its frames. `python -m pdb FILE` works in a terminal."
)
EXIT_REASON = "exit() ended the cell here; nothing after it ran."
EXIT_KEPT = "The kernel and its variables are kept."
QUEUED_REASON = "It waits for the cells before it."
SET_ASIDE_REASON = (
    "Its output was set aside, with all that it had shown before: a message of it took the "
    "controller too long."
)
LOST_REASON = "The kernel finished the cell, but its end was not recorded."


def verdict(
    reply: str | None,
    error: Mapping[str, str] | None,
    *,
    over: str,
    interrupted: bool,
    asked_input: bool,
    exited: bool = False,
) -> tuple[ExecutionStatus, str]:
    """Status and reason of a cell after which the kernel goes on.

    A cell that was interrupted may have taken the interrupt with its last step: it then has
    neither reply nor error.

    Args:
        reply: The status in its reply; None without one.
        over: That its time was over, in words, if it was interrupted for that.
        exited: Whether it ended itself.
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
    if error and failed and name == "StdinNotImplementedError":
        return "error", _input_reason(error)
    if failed:
        return "error", EXIT_REASON if exited and name == "SystemExit" else ""
    return "ok", f"{EXIT_REASON} {EXIT_KEPT}" if exited else ""


def _input_reason(error: Mapping[str, str]) -> str:
    """Why a cell that asks for something fails, and what to do instead."""
    if any(f"{module}.py" in error.get("traceback", "") for module in ("pdb", "bdb")):
        return DEBUGGER_REASON
    return GETPASS_REASON if error.get("evalue", "").startswith("getpass ") else INPUT_REASON


def time_over(timeout_s: float) -> str:
    """That a cell's time is over, in words."""
    return f"The cell ran longer than {timeout_s:g} s."
