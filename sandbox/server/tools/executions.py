"""Running cells: the tool that matters most, and the one that asks how a cell went."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import anyio
import anyio.to_thread
from mcp_types import CallToolResult

from sandbox.errors import SandboxError
from sandbox.kernels.code import unfenced
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.outputs.plain import PlainText
from sandbox.outputs.redaction import Redactor, TextPieces
from sandbox.server import arguments as arg
from sandbox.server.content import cell_content, cell_line, fitting, told
from sandbox.server.desk import ASKING_INTERVAL_S, Desk, caller_of
from sandbox.server.hosts import takes_links
from sandbox.server.http.place import Http
from sandbox.server.missing import advised
from sandbox.server.pictures import pictures_of
from sandbox.server.results import CellSummary, cell_summary, is_rich, shortened
from sandbox.server.showing import Showing
from sandbox.server.tool import CallContext, ToolGroup, tool
from sandbox.sessions.session import Session

CANCEL_GRACE_S = 10.0
MAX_PROGRESS_BYTES = 256 * 1024
"""Of messages that are looked at for one notification."""
MAX_PROGRESS_TEXT = 4000
FENCE_NOTE = "the code ran without the Markdown fence around it; give the code alone"
FAILED = frozenset({"error", "timeout", "died", "lost"})


class _Written:
    """What an execution writes, for one caller, who is told each text once."""

    def __init__(self, execution: Execution, redactor: Redactor) -> None:
        self._execution = execution
        self._plain = PlainText()
        self._pieces = TextPieces(redactor)  # again: plain text may join what codes kept apart
        self._position = 0

    def news(self) -> str:
        """What was written since the last call, as plain text."""
        texts: list[str] = []
        size = 0
        while (got := self._execution.read(self._position)).position > self._position:
            left_out = got.missed
            for message in got.entries:
                size += len(message.content_json)
                if size > MAX_PROGRESS_BYTES:
                    left_out += 1
                elif message.msg_type == "stream":
                    texts.append(self._plain.feed(str(message.content.get("text", ""))))
            if left_out:
                texts.append(f"{self._plain.flush()}\n[… {left_out} messages left out …]\n")
            self._position = got.position
        return self._pieces.feed("".join(texts) + self._plain.flush())


class ExecutionTools(ToolGroup):
    """The tools that run code and answer what came of it."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._showing = Showing(desk.shaping)

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
        async with self._desk.session(ctx, session_id, "execute_code") as session:
            execution = await session.kernels.execute(
                bare, kernel_id=kernel_id, timeout_s=timeout or None
            )
            try:
                result = await self._follow(ctx, session, execution, wait, progress_interval)
            except anyio.get_cancelled_exc_class():
                # Where the caller gave the call up, nobody waits for the cell any more.
                if self._desk.gave_up(ctx):
                    with anyio.move_on_after(CANCEL_GRACE_S, shield=True), suppress(SandboxError):
                        await execution.cancel()
                raise
            result = advised(result, session.policy, self._manager.policies, caller_of(ctx))
        return await self._answer(ctx, result, detail, *([FENCE_NOTE] if bare != code else []))

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
                result = await self._follow(ctx, session, found, wait, progress_interval)
        result = advised(result, policy, self._manager.policies, caller)
        return await self._answer(ctx, result, detail)

    async def _follow(
        self,
        ctx: CallContext,
        session: Session,
        execution: Execution,
        wait_s: float,
        interval_s: float,
    ) -> ExecutionResult:
        """Wait for an execution's end, telling the caller meanwhile what it writes.

        While its session asks a person the call stays. When the server stops, the execution goes
        on without it.
        """
        written = _Written(execution, session.redactor)
        began = anyio.current_time()
        told_s = 0.0

        async def tell(news: str) -> None:
            nonlocal told_s
            told_s = round(max(anyio.current_time() - began, told_s + 0.01), 2)
            await ctx.report_progress(told_s, None, shortened(news, MAX_PROGRESS_TEXT))

        while True:
            left_s = began + wait_s - anyio.current_time()
            is_asking = session.approvals.is_asking
            with self._desk.waiting():
                await execution.wait(max(min(left_s, interval_s), ASKING_INTERVAL_S * is_asking))
            if execution.is_over or self._desk.is_stopping:
                break
            if left_s <= interval_s and not session.approvals.is_asking:
                break
            await tell(written.news() or _standing(execution.snapshot()))
        if wait_s and not self._desk.is_stopping and (news := written.news()):
            await tell(news)
        return execution.snapshot()

    async def _answer(
        self, ctx: CallContext, result: ExecutionResult, detail: str, *notes: str
    ) -> CallToolResult:
        """What is told of an execution to whoever calls."""

        async def find_session() -> Session | None:
            with suppress(SandboxError):
                return await self._manager.get(caller_of(ctx), result.session_id)
            return None

        client = ctx.request_context.session
        host = self._desk.shaping.host(client)
        shown = await self._showing.shown(pictures_of(result.outputs), host, find_session)
        failed = result.status in FAILED

        def summarise() -> CellSummary:
            return cell_summary(
                result,
                shown,
                notes=notes,
                max_text=host.max_failure if failed else host.max_text,
                sent=fitting(result) if detail == "full" else None,
            )

        takes_long = detail == "full" or any(is_rich(output) for output in result.outputs)
        summary = await anyio.to_thread.run_sync(summarise) if takes_long else summarise()
        content = cell_content(summary, shown, links=takes_links(client))
        return told(summary, content, failed=failed)


def _standing(result: ExecutionResult) -> str:
    """How an execution stands, in a line, without going through its outputs."""
    return cell_line(cell_summary(result.model_copy(update={"outputs": []})))
