"""What a supervisor can see of why a cell failed, checked before anybody believes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

import anyio
from pydantic import Field

from sandbox.answers import Answer, parse
from sandbox.errors import SandboxError

Place = Literal["workspace", "tmp", "shm"]
PATHS: Mapping[Place, str] = {"workspace": "/workspace", "tmp": "/tmp", "shm": "/dev/shm"}  # noqa: S108
"""The filesystems of a sandbox that can be written, and fill up."""
PATIENCE_S = 2.0


class Evidence(Answer):
    """What was found; nothing where nobody could look."""

    full: Annotated[dict[Place, Literal["bytes", "inodes"]], Field(max_length=len(PATHS))] = Field(
        default_factory=dict[Place, Literal["bytes", "inodes"]]
    )
    """The filesystems that are full, and of what."""
    oom_kills: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """The processes that were killed for want of memory since the cell began; None: not known."""
    oom_own: bool = False
    """Whether those are the container's own, and not any of the machine's."""

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether a process of the session was killed for want of memory, for all that is known."""
        return bool(self.oom_kills)


class Asked(Protocol):
    """A way to the supervisor's part of one kernel."""

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask it."""
        ...


async def evidence_of(kernel: Asked) -> Evidence:
    """What can be seen now of why a kernel's last cell failed."""
    with anyio.move_on_after(PATIENCE_S):
        try:
            return parse(Evidence, await kernel.call("kernel.evidence"))
        except SandboxError:
            return Evidence()
    return Evidence()


def full_at(event: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths of the filesystems that were full when a kernel exited, as its exit event says."""
    told = event.get("full")
    return tuple(path for name, path in PATHS.items() if isinstance(told, dict) and name in told)
