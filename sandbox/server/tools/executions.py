"""Running cells: the tool that matters most, and the one that asks how a cell went."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult

from sandbox.errors import SandboxError
from sandbox.kernels import Execution, ExecutionResult
from sandbox.server import arguments as arg
from sandbox.server.content import execution_content, execution_line, fitting, shortened
from sandbox.server.desk import Desk, asked, caller_of, permit
from sandbox.server.tool import reply, strict
from sandbox.sessions import Session

DEFAULT_WAIT_S = 50.0
"""Below the minute after which many clients give a call up."""
CANCEL_GRACE_S = 10.0
ASKING_INTERVAL_S = 0.25
"""Between two looks at an execution whose call would be over but for a question to a person."""
MAX_PROGRESS_TEXT = 4000
FAILED = frozenset({"error", "timeout", "died", "lost"})


class ExecutionTools:
    """The tools that run code and answer what came of it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def tools(self) -> list[Tool]:
        """The tools of this group."""
        return [
            strict(self.execute_code, "Run code", destroys=True),
            strict(self.get_execution, "See how an execution stands", reads=True),
        ]

    async def execute_code(
        self,
        ctx: Context[Any, Any],
        code: arg.Code,
        session_id: arg.SessionId = "",
        kernel_id: arg.KernelId = "",
        timeout: arg.Timeout = 0,
        wait: arg.Wait = DEFAULT_WAIT_S,
        progress_interval: arg.ProgressInterval = 5,
    ) -> Annotated[CallToolResult, ExecutionResult]:
        """Run a cell of code in a Jupyter kernel inside your sandbox and answer its outputs.

        Variables, imports and files stay for the next call; the value of the last expression is
        shown, as are figures and tables. Cells of one kernel run one after the other. The result's
        status is ok, error (an exception; variables are kept), interrupted, timeout, died (such as
        out of memory), lost, or running: when the cell takes longer than `wait` seconds the call
        answers what there is so far with an execution_id, the cell goes on, and get_execution asks
        again. All times are in seconds. There is no keyboard: input() fails.
        """
        async with self._desk.session(ctx, session_id, "execute_code") as session:
            execution = await session.kernels.execute(
                code, kernel_id=kernel_id, timeout_s=timeout or None
            )
            try:
                result = await self._follow(ctx, session, execution, wait, progress_interval)
            except anyio.get_cancelled_exc_class():
                # The caller gave the call up, so nobody waits for the cell any more.
                if not self._desk.is_stopping:
                    with anyio.move_on_after(CANCEL_GRACE_S, shield=True), suppress(SandboxError):
                        await execution.cancel()
                raise
        return _answer(result)

    async def get_execution(
        self,
        ctx: Context[Any, Any],
        execution_id: arg.ExecutionId,
        wait: arg.Wait = 0,
        progress_interval: arg.ProgressInterval = 5,
    ) -> Annotated[CallToolResult, ExecutionResult]:
        """See how an execution that answered `running` stands now, with its outputs so far.

        With `wait` the call lasts up to that many seconds for the end. Giving this call up does
        not stop the cell; interrupt_kernel does. It also finds executions from before a restart of
        the server.
        """
        caller, manager = caller_of(ctx), self._desk.manager
        found = await manager.execution(caller, execution_id)
        if isinstance(found, ExecutionResult):
            return _answer(found)
        result = found.snapshot()
        if result.status == "running":
            session = await manager.get(caller, result.session_id)
            permit(session, "get_execution")
            async with asked(ctx, session, "get_execution"):
                result = await self._follow(ctx, session, found, wait, progress_interval)
        return _answer(result)

    async def _follow(
        self,
        ctx: Context[Any, Any],
        session: Session,
        execution: Execution,
        wait_s: float,
        interval_s: float,
    ) -> ExecutionResult:
        """Wait for an execution's end, telling the caller meanwhile what it writes.

        Args:
            ctx: The call, whose caller may have asked for progress.
            session: Whose execution it is; while it asks a person, the call stays.
            execution: What to wait for.
            wait_s: How long to wait in all.
            interval_s: The seconds between two notifications.
        """
        began = anyio.current_time()
        told = 0
        while True:
            left_s = began + wait_s - anyio.current_time()
            is_asking = session.approvals.is_asking
            with self._desk.waiting():
                await execution.wait(max(min(left_s, interval_s), ASKING_INTERVAL_S * is_asking))
            result = execution.snapshot()
            # When the server stops, the execution goes on without it.
            if result.status != "running" or self._desk.is_stopping:
                return result
            if left_s <= interval_s and not session.approvals.is_asking:
                return result
            written = _written(result)
            news = written[told:] or execution_line(result)
            told = len(written)
            elapsed_s = round(anyio.current_time() - began, 2)
            await ctx.report_progress(elapsed_s, None, shortened(news, MAX_PROGRESS_TEXT))


def _answer(result: ExecutionResult) -> CallToolResult:
    result = fitting(result)
    return reply(result, *execution_content(result), failed=result.status in FAILED)


def _written(result: ExecutionResult) -> str:
    return "".join(
        str(output.get("text", ""))
        for output in result.outputs
        if output.get("output_type") == "stream"
    )
