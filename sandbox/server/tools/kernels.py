"""Kernels: what runs cells, in which language, and what it knows."""

from __future__ import annotations

from typing import Annotated

from mcp_types import CallToolResult
from pydantic import BaseModel

from sandbox.kernels.kernels import DEFAULT_KERNEL_ID
from sandbox.kernels.models import Completion, Inspection, KernelInfo
from sandbox.server import arguments as arg
from sandbox.server.http.place import Http
from sandbox.server.tool import CallContext, ToolGroup, reply, tool


class Kernelspec(BaseModel):
    """A kind of kernel that the session's image has."""

    name: str
    display_name: str
    language: str


class KernelList(BaseModel):
    """The session's kernels, and what others it could start."""

    session_id: str
    kernels: list[KernelInfo]
    kernelspecs: list[Kernelspec]


class KernelTools(ToolGroup):
    """The tools that act on kernels."""

    @tool(
        "List kernels",
        reads=True,
        http=Http("GET", "/sessions/{session_id}/kernels", items="kernels"),
    )
    async def list_kernels(
        self, ctx: CallContext, session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, KernelList]:
        """List the session's kernels, and what start_kernel can start."""
        async with self._desk.session(ctx, session_id, "list_kernels") as session:
            kernels = list(session.kernels.infos)
            specs = [
                Kernelspec(name=name, display_name=spec.display_name, language=spec.language)
                for name, spec in sorted((await session.kernels.kernelspecs()).items())
            ]
            found = KernelList(session_id=session.session_id, kernels=kernels, kernelspecs=specs)
        lines = [_line(kernel) for kernel in kernels] or ["No kernel runs yet."]
        lines.append(f"Can be started: {', '.join(spec.name for spec in specs)}.")
        return reply(found, "\n".join(lines))

    @tool(
        "Start a kernel",
        http=Http(
            "POST",
            "/sessions/{session_id}/kernels",
            201,
            location="/sessions/{session_id}/kernels/{kernel_id}",
        ),
    )
    async def start_kernel(
        self,
        ctx: CallContext,
        kernel_name: arg.KernelName = "python3",
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, KernelInfo]:
        """Start another kernel, with variables of its own, for another language or for cells at the
        same time."""
        async with self._desk.session(ctx, session_id, "start_kernel") as session:
            return _described(await session.kernels.start(kernel_name))

    @tool(
        "Interrupt a kernel",
        repeatable=True,
        http=Http("POST", "/sessions/{session_id}/kernels/{kernel_id}/interrupt"),
    )
    async def interrupt_kernel(
        self, ctx: CallContext, kernel_id: arg.KernelId = "", session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, KernelInfo]:
        """Interrupt the running cell as ctrl-c would; variables are kept, and waiting cells run
        next."""
        async with self._desk.session(ctx, session_id, "interrupt_kernel") as session:
            await session.kernels.interrupt(kernel_id)
            wanted = kernel_id or DEFAULT_KERNEL_ID
            (kernel,) = [k for k in session.kernels.infos if k.kernel_id == wanted]
        return _described(kernel)

    @tool(
        "Restart a kernel",
        destroys=True,
        http=Http("POST", "/sessions/{session_id}/kernels/{kernel_id}/restart"),
    )
    async def restart_kernel(
        self, ctx: CallContext, kernel_id: arg.KernelId = "", session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, KernelInfo]:
        """Restart a kernel at once: variables, imports and the running cell are gone, files
        stay."""
        async with self._desk.session(ctx, session_id, "restart_kernel") as session:
            return _described(await session.kernels.restart(kernel_id))

    @tool(
        "Stop a kernel",
        destroys=True,
        http=Http("DELETE", "/sessions/{session_id}/kernels/{kernel_id}"),
    )
    async def stop_kernel(
        self, ctx: CallContext, kernel_id: arg.KernelId = "", session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, KernelInfo]:
        """Stop a kernel for good and free its memory; files stay."""
        async with self._desk.session(ctx, session_id, "stop_kernel") as session:
            return _described(await session.kernels.stop(kernel_id))

    @tool(
        "Complete code",
        reads=True,
        http=Http("POST", "/sessions/{session_id}/kernels/{kernel_id}/complete", is_large=True),
    )
    async def complete_code(
        self,
        ctx: CallContext,
        code: arg.Code,
        cursor_pos: arg.CursorPosition = -1,
        kernel_id: arg.KernelId = "",
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, Completion]:
        """Complete the name at the cursor; a match replaces cursor_start to cursor_end."""
        async with self._desk.session(ctx, session_id, "complete_code") as session:
            found = await session.kernels.complete(
                code, None if cursor_pos < 0 else cursor_pos, kernel_id
            )
        return reply(found, "\n".join(found.matches) or "No completion.")

    @tool(
        "Inspect code",
        reads=True,
        http=Http("POST", "/sessions/{session_id}/kernels/{kernel_id}/inspect", is_large=True),
    )
    async def inspect_code(
        self,
        ctx: CallContext,
        code: arg.Code,
        cursor_pos: arg.CursorPosition = -1,
        detail_level: arg.DetailLevel = 0,
        kernel_id: arg.KernelId = "",
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, Inspection]:
        """Answer the signature and documentation of the name at the cursor."""
        async with self._desk.session(ctx, session_id, "inspect_code") as session:
            found = await session.kernels.inspect(
                code, None if cursor_pos < 0 else cursor_pos, detail_level, kernel_id
            )
        return reply(found, found.text or "The kernel knows nothing about that name.")


def _described(kernel: KernelInfo) -> CallToolResult:
    return reply(kernel, _line(kernel))


def _line(kernel: KernelInfo) -> str:
    waiting = f", {kernel.queue_length} cells wait" if kernel.queue_length else ""
    reason = f" ({kernel.reason})" if kernel.reason else ""
    branch = f", branch of {kernel.branch_of}" if kernel.branch_of else ""
    return f"Kernel {kernel.kernel_id} ({kernel.name}){branch}: {kernel.state}{reason}{waiting}."
