"""Running cells: the tool that matters most, and the one that asks how a cell went."""

from __future__ import annotations

from typing import Annotated

from mcp_types import CallToolResult

from sandbox.kernels.code import unfenced
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.server import arguments as arg
from sandbox.server.advice import advised
from sandbox.server.desk import Desk, caller_of
from sandbox.server.http.place import Http
from sandbox.server.notebooksinuse import current_kernel
from sandbox.server.outcomes import Following
from sandbox.server.results import CellSummary
from sandbox.server.tool import CallContext, ToolGroup, tool

FENCE_NOTE = "the code ran without the Markdown fence around it; give the code alone"


class ExecutionTools(ToolGroup):
    """The tools that run code and answer what came of it."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._following = Following(desk)

    @tool(
        "Run code",
        destroys=True,
        http=Http(
            "POST",
            "/sessions/{session_id}/executions",
            201,
            query=("wait", "detail"),
            defaults={"detail": "full"},
            location="/sessions/{session_id}/executions/{execution_id}",
            is_large=True,
        ),
    )
    async def execute_code(
        self,
        ctx: CallContext,
        code: arg.Code,
        session_id: arg.SessionId = "",
        kernel_id: arg.KernelId = "",
        timeout: arg.Timeout = 0,
        wait: arg.Wait = arg.DEFAULT_WAIT_S,
        progress_interval: arg.ProgressInterval = 5,
        detail: arg.Detail = "brief",
    ) -> Annotated[CallToolResult, CellSummary]:
        """Run a cell of code in a Jupyter kernel and answer its text, pictures and error.

        Variables, imports and files stay for the next call; the last expression's value is shown.
        status is ok, error (variables are kept), interrupted, timeout, died (such as out of
        memory), lost, or running: after `wait` seconds it goes on and get_execution asks again.
        Cells of a kernel run one after the other. input() fails.
        """
        bare = unfenced(code)
        notes = [FENCE_NOTE] if bare != code else []
        async with self._desk.session(ctx, session_id, "execute_code") as session:
            if not kernel_id and (current := await current_kernel(ctx, session)):
                kernel_id, note = current
                notes.append(note)
            execution = await session.kernels.execute(
                bare, kernel_id=kernel_id, timeout_s=timeout or None
            )
            result = await self._following.until_given_up(
                ctx, session, execution, wait, progress_interval
            )
            result = await advised(
                result, session, session.policy, self._manager.policies, caller_of(ctx)
            )
        return await self._following.answer(ctx, result, detail, *notes)

    @tool(
        "See how an execution stands",
        reads=True,
        http=Http(
            "GET",
            "/sessions/{session_id}/executions/{execution_id}",
            defaults={"detail": "full"},
        ),
    )
    async def get_execution(
        self,
        ctx: CallContext,
        execution_id: arg.ExecutionId,
        wait: arg.Wait = 0,
        progress_interval: arg.ProgressInterval = 5,
        session_id: arg.ItsSessionId = "",
        detail: arg.Detail = "brief",
    ) -> Annotated[CallToolResult, CellSummary]:
        """See how an execution stands, with its outputs so far.

        Giving this call up does not stop it; interrupt_kernel does.
        """
        caller = caller_of(ctx)
        found = await self._manager.execution(caller, execution_id)
        result = found if isinstance(found, ExecutionResult) else found.snapshot()
        async with self._desk.session_of(ctx, result, "get_execution", session_id) as session:
            policy = self._desk.policy_of(caller, result.session_id)
            if session and isinstance(found, Execution):
                result = await self._following.follow(ctx, session, found, wait, progress_interval)
            result = await advised(result, session, policy, self._manager.policies, caller)
        return await self._following.answer(ctx, result, detail)
