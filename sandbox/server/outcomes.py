"""Executions for whoever waits for them: what they write meanwhile, and what came of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import anyio
import anyio.to_thread
from mcp_types import CallToolResult

from sandbox.errors import SandboxError
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.outputs.plain import PlainText
from sandbox.outputs.redaction import Redactor, TextPieces
from sandbox.server.content import cell_content, cell_line, fitting, told
from sandbox.server.desk import ASKING_INTERVAL_S, Desk, caller_of
from sandbox.server.hosts import takes_links
from sandbox.server.http.calling import is_over_http
from sandbox.server.pictures import Shown, pictures_of
from sandbox.server.results import CellSummary, cell_summary, is_rich, shortened
from sandbox.server.showing import Showing
from sandbox.server.tool import CallContext
from sandbox.sessions.session import Session

CANCEL_GRACE_S = 10.0
MAX_PROGRESS_BYTES = 256 * 1024
"""Of messages that are looked at for one notification."""
MAX_PROGRESS_TEXT = 4000
MAX_AT_ONCE = 16 * 1024
"""The characters of outputs that are told in full without a thread for it."""
FAILED = frozenset({"error", "timeout", "died", "lost"})


class Written:
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


class Following:
    """Waits for a desk's executions, and answers what came of them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._showing = Showing(desk.shaping)

    async def until_given_up(
        self,
        ctx: CallContext,
        session: Session,
        execution: Execution,
        wait_s: float,
        interval_s: float,
        *,
        streams: bool = True,
    ) -> ExecutionResult:
        """The same as :meth:`follow`, for the call that began the execution: where its caller gives
        that up, nobody waits for the cell any more, and it is interrupted."""
        try:
            return await self.follow(ctx, session, execution, wait_s, interval_s, streams=streams)
        except anyio.get_cancelled_exc_class():
            if self._desk.gave_up(ctx):
                with anyio.move_on_after(CANCEL_GRACE_S, shield=True), suppress(SandboxError):
                    await execution.cancel()
            raise

    async def follow(
        self,
        ctx: CallContext,
        session: Session,
        execution: Execution,
        wait_s: float,
        interval_s: float,
        *,
        streams: bool = True,
    ) -> ExecutionResult:
        """Wait for an execution's end, telling the caller meanwhile what it writes.

        While its session asks a person the call stays. When the server stops, the execution goes
        on without it.

        Args:
            streams: Tell what it writes; else only how it stands.
        """
        written = Written(execution, session.redactor)
        streams = streams and not is_over_http(ctx)  # where nobody listens
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
            await tell((streams and written.news()) or standing(execution.snapshot()))
        if streams and wait_s and not self._desk.is_stopping and (news := written.news()):
            await tell(news)
        return execution.snapshot()

    async def answer(
        self,
        ctx: CallContext,
        result: ExecutionResult,
        detail: str,
        *notes: str,
        adapt: Callable[[CellSummary], CellSummary] = lambda summary: summary,
    ) -> CallToolResult:
        """What is told of an execution to whoever calls.

        Args:
            adapt: Puts into the summary what else the call is about.
        """

        async def find_session() -> Session | None:
            with suppress(SandboxError):
                return await self._desk.manager.get(caller_of(ctx), result.session_id)
            return None

        client = ctx.request_context.session
        host = self._desk.shaping.host(client)
        found = pictures_of(result.outputs)
        if is_over_http(ctx):  # a program gets them as they are
            shown = [Shown(each, each.data, each.mime) for each in found]
        else:
            shown = await self._showing.shown(found, host, find_session)
        failed = result.status in FAILED

        def summarise() -> CellSummary:
            return cell_summary(
                result,
                shown,
                notes=notes,
                max_text=host.max_failure if failed else host.max_text,
                sent=fitting(result) if detail == "full" else None,
            )

        takes_long = any(map(is_rich, result.outputs)) or (
            detail == "full" and sum(map(_length, result.outputs)) > MAX_AT_ONCE
        )
        summary = adapt(await anyio.to_thread.run_sync(summarise) if takes_long else summarise())
        content = cell_content(summary, shown, links=takes_links(client))
        return told(summary, content, failed=failed)


def _length(output: dict[str, Any]) -> int:
    """The characters of an output that is not rich."""
    data = cast("dict[str, Any]", output.get("data") or {})
    texts = (output.get("text", ""), *data.values(), *output.get("traceback", ()))
    return sum(map(len, texts))


def standing(result: ExecutionResult) -> str:
    """How an execution stands, in a line, without going through its outputs."""
    return cell_line(cell_summary(result.model_copy(update={"outputs": []})))
