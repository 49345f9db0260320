"""What is answered in the place of a kernel that runs a cell, or is dead, and answers nothing.

Callers of ours are told that it is busy. Clients of Jupyter know no such answer: what completes
code or describes names waits for it with a time-out of seconds, so they get an empty one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sandbox.errors import Conflict
from sandbox.kernels.execution import Execution

_ENDED = "Ask again when that has ended, or interrupt the kernel."


def busy(kernel_id: str, running: Execution, waiting: int) -> Conflict:
    """That a kernel is busy, with what, and since when."""
    started_at = running.record.started_at or running.record.submitted_at
    since_s = max(time.time() - started_at, 0.0)
    behind = f", and {waiting} more cells wait" if waiting > 1 else ""
    behind = ", and 1 more cell waits" if waiting == 1 else behind
    what = f"the execution {running.execution_id} has been running for {since_s:.1f} s"
    return Conflict(f"The kernel {kernel_id} is busy: {what}{behind}.", remedy=_ENDED)


def dead(kernel_id: str, why: str, checkpoint: str) -> Conflict:
    """That a kernel is dead, and how to go on; ``checkpoint`` is its latest, if it has one."""
    back = f"Roll it back to its checkpoint {checkpoint!r}, restart" if checkpoint else "Restart"
    return Conflict(
        f"The kernel {kernel_id} is dead. {why}",
        remedy=f"Its variables are lost. {back} it, or start another one.",
    )


def meanwhile(msg_type: str, content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of the reply that a client of Jupyter gets at once, for a request that it would
    wait in vain for; None for one that the kernel answers when it comes to it.

    Without candidates a completer offers what else it knows, and ``unknown`` lets a console decide
    by itself whether a cell is whole. History is refused and empty: who asks once, as it begins,
    must not take that for all there is.
    """
    match msg_type:
        case "complete_request":
            at = _cursor(content)
            places = {"cursor_start": at, "cursor_end": at}
            return {"status": "ok", "matches": [], "metadata": {}, **places}
        case "inspect_request":
            return {"status": "ok", "found": False, "data": {}, "metadata": {}}
        case "is_complete_request":
            return {"status": "unknown"}
        case "history_request":
            told = "The kernel runs a cell."
            error = {"ename": "KernelBusy", "evalue": told, "traceback": [told]}
            return {"status": "error", "history": [], **error}
        case _:
            return None


def _cursor(content: Mapping[str, Any]) -> int:
    """Where a client's cursor is; at the end of its code when it does not say."""
    code, at = content.get("code"), content.get("cursor_pos")
    size = len(code) if isinstance(code, str) else 0
    return at if type(at) is int and 0 <= at <= size else size
