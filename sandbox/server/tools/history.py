"""What ran: the way back to executions whose ids nobody has, as after a lost connection."""

from __future__ import annotations

from typing import Annotated

from mcp_types import CallToolResult
from pydantic import BaseModel

from sandbox.server import arguments as arg
from sandbox.server.http.place import Http
from sandbox.server.tool import CallContext, ToolGroup, reply, tool
from sandbox.sessions.models import ExecutionSummary


class ExecutionList(BaseModel):
    """What ran and runs, newest first."""

    executions: list[ExecutionSummary]


class HistoryTools(ToolGroup):
    """The tools that tell what ran."""

    @tool(
        "List executions",
        reads=True,
        http=Http("GET", "/sessions/{session_id}/executions", items="executions"),
    )
    async def list_executions(
        self, ctx: CallContext, session_id: arg.AnySessionId = ""
    ) -> Annotated[CallToolResult, ExecutionList]:
        """List the cells that ran last and run now, newest first. A cell goes on when the
        connection of its call is lost."""
        found = ExecutionList(executions=await self._desk.executions(ctx, session_id))
        lines = [_line(each) for each in found.executions]
        return reply(found, "\n".join(lines) or "Nothing ran yet.")


def _line(summary: ExecutionSummary) -> str:
    kept = "" if summary.state == "kept" else f", state {summary.state}"
    return (
        f"{summary.execution_id} {summary.status}{kept}, asked for {summary.age_s:.0f} s ago, ran "
        f"{summary.duration_s:.1f} s, kernel {summary.kernel_id}, session {summary.session_id}: "
        f"{summary.code}"
    )
