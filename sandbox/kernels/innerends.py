"""What became of a kernel's variables when what runs its cells has ended, and the kernel goes on.

``metadata["sandbox"]["state"]`` of a reply is no part of the protocol: our Bash kernel says there
that its shell has ended with the cell, or before it, and that there is another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sandbox.kernels.models import KernelState

REPLACED_REASON = "The shell ended, and a new one is there."


def state_told(metadata: Mapping[str, Any]) -> KernelState:
    """What the metadata of a message say of the kernel's variables: kept, unless it tells more."""
    ours = metadata.get("sandbox")
    is_new = isinstance(ours, dict) and cast("dict[str, Any]", ours).get("state") == "restarted"
    return "restarted" if is_new else "kept"


def with_reason(state: KernelState, reason: str) -> str:
    """Why a cell ended so, and that its shell was replaced."""
    return f"{reason} {REPLACED_REASON}".lstrip() if state == "restarted" else reason
