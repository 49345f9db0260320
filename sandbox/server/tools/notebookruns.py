"""Running the cells of a notebook: their outputs go into the notebook, and to whoever asks."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import anyio
from mcp_types import CallToolResult

from sandbox.collaboration.contracts import CellRun
from sandbox.errors import Conflict, InfrastructureError, InvalidRequest, SandboxError
from sandbox.kernels.models import ExecutionResult
from sandbox.notebooks import editing
from sandbox.notebooks.models import CellRef
from sandbox.notebooks.runrules import is_run
from sandbox.server import arguments as arg
from sandbox.server.advice import advised
from sandbox.server.content import told
from sandbox.server.desk import ASKING_INTERVAL_S, Desk, caller_of
from sandbox.server.http.idempotency import PartlyDone
from sandbox.server.http.place import BY_PATH, Http
from sandbox.server.notebooksinuse import LEFT_OUT, InUse, Which, advice, agreed, in_use
from sandbox.server.outcomes import CANCEL_GRACE_S, FAILED, Following, Written
from sandbox.server.results import CellSummary, shortened
from sandbox.server.tool import CallContext, ToolGroup, tool
from sandbox.sessions.liveruns import LiveRun, RunOptions

MAX_PROGRESS_TEXT = 2000
MIN_PROGRESS_S = 0.5
"""Between two notifications of a run of short cells."""
CODE = "code"
ENDED_NOTE = "that run ended before this call; run_notebook runs all of it again"


class CellRunTools(ToolGroup):
    """The tools that run cells of a notebook."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._following = Following(desk)

    @tool(
        "Run a cell",
        destroys=True,
        http=Http(
            "POST",
            "/sessions/{session_id}/notebooks/{path:path}/cells/{cell_id}/execute",
            query=("wait",),
            location="/sessions/{session_id}/executions/{execution_id}",
            stands_for=BY_PATH,
        ),
    )
    async def execute_cell(
        self,
        ctx: CallContext,
        cell_index: arg.CellIndex = LEFT_OUT,
        timeout: arg.CellTimeout = 0,
        stream: arg.Streams = True,
        progress_interval: arg.ProgressInterval = 5,
        cell_id: arg.CellId = "",
        wait: arg.CellWait = arg.DEFAULT_WAIT_S,
        notebook_name: arg.NotebookName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, CellSummary]:
        """Run a code cell; its outputs are in the notebook, too.

        timeout and wait are as for execute_code.
        """
        which = Which(cell_index, cell_id)
        which.check()
        tool = "execute_cell"
        async with in_use(self._desk, ctx, session_id, tool, notebook_name) as used:
            notebook = used.live.read()
            cell = notebook.cell(which.of(notebook))
            if cell.cell_type != CODE:
                raise InvalidRequest(
                    f"Cell {cell.id} is {cell.cell_type}: only code cells are run."
                )
            was_asked = await agreed(ctx, used, tool, {cell.id: cell.source})
            run = await _begun(used, cell.id, timeout, cell.source if was_asked else None)
            result = await self._following.until_given_up(
                ctx, used.session, run.execution, wait, progress_interval, streams=stream
            )
            return await self._answer(ctx, used, run, result)

    @tool(
        "Insert a code cell and run it",
        destroys=True,
        http=Http(
            "POST",
            "/sessions/{session_id}/notebooks/{path:path}/cells/execute",
            query=("wait",),
            location="/sessions/{session_id}/executions/{execution_id}",
            is_large=True,
            stands_for=BY_PATH,
        ),
    )
    async def insert_execute_code_cell(
        self,
        ctx: CallContext,
        cell_index: arg.CellPlace,
        cell_source: arg.CellSource,
        timeout: arg.CellTimeout = 0,
        stream: arg.Streams = True,
        progress_interval: arg.ProgressInterval = 5,
        wait: arg.CellWait = arg.DEFAULT_WAIT_S,
        notebook_name: arg.NotebookName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, CellSummary]:
        """Insert a code cell before the one at an index and run it."""
        tool = "insert_execute_code_cell"
        async with in_use(self._desk, ctx, session_id, tool, notebook_name) as used:
            was_asked = await agreed(ctx, used, tool)
            edited = await used.edit(
                lambda notebook: editing.insert(notebook, cell_index, CODE, cell_source)
            )
            (cell_id,) = edited.cell_ids
            try:
                source = cell_source if was_asked else None
                run = await _begun(used, cell_id, timeout, source)
            except SandboxError as exc:
                said = f"Cell {cell_id} was inserted and not run: {exc.message}"
                if isinstance(exc, InfrastructureError):  # the session looks at those
                    exc.message = said
                    raise
                raise PartlyDone(said, remedy=exc.remedy) from exc
            result = await self._following.until_given_up(
                ctx, used.session, run.execution, wait, progress_interval, streams=stream
            )
            return await self._answer(ctx, used, run, result)

    @tool(
        "Run a notebook",
        destroys=True,
        http=Http(
            "POST",
            "/sessions/{session_id}/notebooks/{path:path}/run",
            query=("wait",),
            stands_for=BY_PATH,
        ),
    )
    async def run_notebook(
        self,
        ctx: CallContext,
        notebook_name: arg.NotebookName = "",
        allow_errors: arg.AllowErrors = False,
        timeout: arg.CellTimeout = 0,
        wait: arg.CellWait = arg.DEFAULT_WAIT_S,
        progress_interval: arg.ProgressInterval = 5,
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, CellSummary]:
        """Run all code cells in order until one fails, and answer how the last one went.

        Called again while it runs, it waits for that.
        """
        tool = "run_notebook"
        async with in_use(self._desk, ctx, session_id, tool, notebook_name) as used:
            runs, key = used.session.notebook_runs, used.author.key
            run = runs.going_on(used.live.path)
            if run is None and (ended := runs.awaited(used.live, key)) is not None:
                ended.awaited_by.discard(key)
                return await self._ran(ctx, used, ended, ENDED_NOTE)
            if is_own := run is None:
                sources = {c.id: c.source for c in used.live.read().cells if is_run(c)}
                was_asked = await agreed(ctx, used, tool, sources)
                options = RunOptions(timeout or None, allow_errors, sources if was_asked else None)
                run = runs.begin(used.live, used.author, options)
            try:
                await self._wait(ctx, used, run, wait, progress_interval)
            except anyio.get_cancelled_exc_class():
                if is_own and self._desk.gave_up(ctx):
                    with anyio.move_on_after(CANCEL_GRACE_S, shield=True), suppress(SandboxError):
                        await run.interrupt()
                raise
            run.awaited_by.discard(key)
            if run.outcome is None:
                run.awaited_by.add(key)
            return await self._ran(ctx, used, run)

    async def _wait(
        self, ctx: CallContext, used: InUse, run: LiveRun, wait_s: float, interval_s: float
    ) -> None:
        """Wait for a run's end, telling the caller meanwhile how far it is and what is written."""
        written: Written | None = None
        latest: CellRun | None = None
        told, told_at = 0.0, 0.0
        approvals = used.session.approvals
        ends = anyio.current_time() + wait_s
        while run.outcome is None and not self._desk.is_stopping:
            left_s = ends - anyio.current_time()
            if left_s <= 0 and not approvals.is_asking:
                break
            pause_s = max(min(left_s, interval_s), ASKING_INTERVAL_S * approvals.is_asking)
            with self._desk.waiting(), anyio.move_on_after(pause_s):
                await run.wait_moved(run.latest)
            if run.latest is not None and run.latest is not latest:
                latest = run.latest
                written = Written(latest.execution, used.session.redactor)
            now = anyio.current_time()
            if run.outcome is None and now >= told_at + min(interval_s, MIN_PROGRESS_S):
                told, told_at = max(told + 0.001, float(run.done)), now
                title = f"; cell {latest.index} runs" if latest else ""
                news = written.news() if written else ""
                message = shortened(f"{_how_far(run)}{title}\n{news}", MAX_PROGRESS_TEXT)
                await ctx.report_progress(told, max(float(run.total), told), message.rstrip())

    async def _ran(
        self, ctx: CallContext, used: InUse, run: LiveRun, *notes: str
    ) -> CallToolResult:
        """How far a run is, or how it ended."""
        result, outcome = run.snapshot(), run.outcome
        if result is None:
            if run.failure is not None:
                raise advice(used, run.failure)
            status = outcome.status if outcome else "running"
            empty = CellSummary(
                execution_id="",
                session_id=used.session.session_id,
                kernel_id=used.live.kernel_id,
                status=status,
                state="kept",
                text="",
                notes=[_how_far(run), *notes, *used.notes],
                next="" if outcome else "run_notebook goes on waiting",
            )
            said = "\n".join(f"[{each}]" for each in (*empty.notes, status))
            return told(empty, [said], failed=status in FAILED)
        return await self._answer(ctx, used, run.latest, result, _how_far(run), *notes, run=run)

    async def _answer(
        self,
        ctx: CallContext,
        used: InUse,
        cell: CellRun | None,
        result: ExecutionResult,
        *notes: str,
        run: LiveRun | None = None,
    ) -> CallToolResult:
        """What came of a cell, with where it is in the notebook now."""
        caller = caller_of(ctx)
        result = await advised(
            result, used.session, used.session.policy, self._manager.policies, caller
        )
        cell_id = cell.cell_id if cell else ""
        cells = used.live.read().cells
        index = next((at for at, each in enumerate(cells) if each.id == cell_id), LEFT_OUT)

        def adapt(summary: CellSummary) -> CellSummary:
            update: dict[str, object] = {"cell_id": cell_id, "cell_index": index}
            if run is not None and run.outcome is None:
                update["next"] = "run_notebook goes on waiting; interrupt_kernel ends it"
            return summary.model_copy(update=update)

        return await self._following.answer(ctx, result, "brief", *notes, *used.notes, adapt=adapt)


async def _begun(used: InUse, ref: CellRef, timeout_s: float, source: str | None) -> CellRun:
    try:
        return await used.live.execute(ref, used.author, timeout_s=timeout_s or None, source=source)
    except Conflict as exc:
        raise advice(used, exc) from exc


def _how_far(run: LiveRun) -> str:
    """How far a run is, in words."""
    ran = f"{run.done - run.skipped} of {run.total} cells ran"
    gone = f", {run.skipped} were deleted before their turn" if run.skipped else ""
    errors = run.outcome.errors if run.outcome else 0
    return ran + gone + (f", {errors} with errors that are allowed" if errors else "")
