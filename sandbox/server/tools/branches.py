"""Copies of kernels: branches, which run, and checkpoints, to which kernels are rolled back."""

from __future__ import annotations

import time
from typing import Annotated, Any

from mcp_types import CallToolResult
from pydantic import BaseModel, Field

from sandbox.kernels.models import Checkpoint
from sandbox.policy.units import MIB
from sandbox.server import arguments as arg
from sandbox.server.content import told
from sandbox.server.http.place import Http
from sandbox.server.tool import CallContext, ToolGroup, reply, tool

KERNEL = "/sessions/{session_id}/kernels/{kernel_id}"
CHECKPOINTS = f"{KERNEL}/checkpoints"
CHECKPOINT = f"{CHECKPOINTS}/{{name}}"


class CopySummary(BaseModel, frozen=True):
    """A copy of a kernel that was made, gone back to or let go; what is empty is left out."""

    session_id: str
    kernel_id: str
    done: str
    """What was done, in words."""
    next: str = ""
    """What can be done now."""
    branch_of: str = ""
    checkpoint: str = ""
    files: bool = False
    """Whether the workspace's files are in the checkpoint."""
    memory_bytes: int = 0
    """What the copy takes by itself."""
    execution_count: int = 0
    """Of the kernel as it is now; 0 when it is not known."""
    ended: list[str] = Field(default_factory=list[str])
    """The executions that were ended for it."""
    notes: list[str] = Field(default_factory=list[str])
    """What of the workspace is not as it was."""
    duration_s: float = 0.0


class CheckpointList(BaseModel, frozen=True):
    """The checkpoints of a kernel."""

    session_id: str
    kernel_id: str
    checkpoint: str = ""
    """``auto`` when one is made before each cell."""
    checkpoints: list[Checkpoint]


class BranchTools(ToolGroup):
    """The tools that copy kernels."""

    @tool(
        "Branch a kernel",
        http=Http("POST", f"{KERNEL}/branches", 201, location=KERNEL),
    )
    async def branch_kernel(
        self,
        ctx: CallContext,
        kernel_id: arg.KernelId = "",
        reseed: arg.Reseed = True,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, CopySummary]:
        """Copy an idle Python kernel with all its variables, in milliseconds: another kernel_id to
        try things in."""
        began = time.monotonic()
        async with self._desk.session(ctx, session_id, "branch_kernel") as session:
            made = await session.kernels.branches.branch(kernel_id, reseed=reseed)
        random = ", random numbers reseeded" if reseed else ""
        return _copied(
            began,
            session_id=session.session_id,
            kernel_id=made.kernel_id,
            done=f"Kernel {made.kernel_id} is a branch of {made.branch_of}, with all its "
            f"variables and imports{random}",
            next=f"execute_code(kernel_id={made.kernel_id!r}) goes on in it, stop_kernel frees it",
            branch_of=made.branch_of,
            execution_count=made.execution_count,
        )

    @tool("Keep a checkpoint", http=Http("POST", CHECKPOINTS, 201))
    async def checkpoint_kernel(
        self,
        ctx: CallContext,
        name: arg.CheckpointName,
        kernel_id: arg.KernelId = "",
        files: arg.WithFiles = False,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, CopySummary]:
        """Keep an idle Python kernel's state under a name, for rollback_kernel."""
        began = time.monotonic()
        async with self._desk.session(ctx, session_id, "checkpoint_kernel") as session:
            kept = await session.kernels.branches.checkpoint(name, kernel_id, files=files)
            kernel = session.kernels.kernel(kernel_id).info()
        what = "variables and the workspace's files" if kept.files else "variables, and no files"
        return _copied(
            began,
            session_id=session.session_id,
            kernel_id=kernel.kernel_id,
            done=f"Checkpoint {kept.name!r} of kernel {kernel.kernel_id} has its {what}; it takes "
            f"{kept.memory_bytes / MIB:.1f} MiB by itself",
            next=f"rollback_kernel(name={kept.name!r}) goes back to it, as often as you like",
            checkpoint=kept.name,
            files=kept.files,
            memory_bytes=kept.memory_bytes,
            notes=list(kept.notes),
            execution_count=kernel.execution_count,
        )

    @tool("Roll a kernel back", destroys=True, http=Http("POST", f"{CHECKPOINT}/rollback"))
    async def rollback_kernel(
        self,
        ctx: CallContext,
        name: arg.CheckpointName,
        kernel_id: arg.KernelId = "",
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, CopySummary]:
        """Put a kernel, even a dead one, back to a checkpoint: what came after is lost, its cells
        are interrupted."""
        began = time.monotonic()
        async with self._desk.session(ctx, session_id, "rollback_kernel") as session:
            back = await session.kernels.branches.roll_back(name, kernel_id)
        kernel, files = back.kernel, back.checkpoint.files
        count = len(back.ended)
        cells = f"; {count} cell{'s' * (count > 1)} of it ended" if count else ""
        return _copied(
            began,
            session_id=session.session_id,
            kernel_id=kernel.kernel_id,
            done=f"Kernel {kernel.kernel_id} is back at the checkpoint {name!r}: its variables"
            f"{' and the workspace files' if files else ''} are as they were then"
            f"{'' if files else ', files are as they are now'}{cells}",
            next="the checkpoint stays; drop_checkpoint frees it",
            checkpoint=name,
            files=files,
            execution_count=kernel.execution_count,
            ended=back.ended,
            notes=list(back.notes),
        )

    @tool("List checkpoints", reads=True, http=Http("GET", CHECKPOINTS, items="checkpoints"))
    async def list_checkpoints(
        self, ctx: CallContext, kernel_id: arg.KernelId = "", session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, CheckpointList]:
        """List a kernel's checkpoints, oldest first."""
        async with self._desk.session(ctx, session_id, "list_checkpoints") as session:
            kernel, kept = await session.kernels.branches.checkpoints(kernel_id)
            found = CheckpointList(
                session_id=session.session_id,
                kernel_id=kernel.kernel_id,
                checkpoint=session.claim.checkpoint,
                checkpoints=kept,
            )
        lines = [_line(each) for each in found.checkpoints] or ["There is no checkpoint."]
        if found.checkpoint:
            lines.append("One is made before each cell.")
        return reply(found, "\n".join(lines))

    @tool("Drop a checkpoint", destroys=True, http=Http("DELETE", CHECKPOINT))
    async def drop_checkpoint(
        self,
        ctx: CallContext,
        name: arg.CheckpointName,
        kernel_id: arg.KernelId = "",
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, CopySummary]:
        """Drop a checkpoint for good and free its memory."""
        began = time.monotonic()
        async with self._desk.session(ctx, session_id, "drop_checkpoint") as session:
            kernel = await session.kernels.branches.drop(name, kernel_id)
        return _copied(
            began,
            session_id=session.session_id,
            kernel_id=kernel.kernel_id,
            done=f"The checkpoint {name!r} of kernel {kernel.kernel_id} is gone",
            checkpoint=name,
        )


def _copied(began: float, **fields: Any) -> CallToolResult:
    """An answer, which also says how long it took since ``began``."""
    summary = CopySummary(**fields, duration_s=round(time.monotonic() - began, 4))
    took = f", in {summary.duration_s * 1000:.0f} ms."
    line = f"{summary.done}{took}{f' Next: {summary.next}.' * bool(summary.next)}"
    return told(summary, [line, *summary.notes])


def _line(kept: Checkpoint) -> str:
    size = f"{kept.memory_bytes / MIB:.1f} MiB"
    files = ", with files" if kept.files else ""
    lost = "" if kept.alive else ": lost, its process has ended"
    return f"{kept.name}: {time.time() - kept.created_at:.0f} s old, {size}{files}{lost}"
