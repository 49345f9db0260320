"""Terminals: interactive programs on a screen."""

from __future__ import annotations

from typing import Annotated

from mcp_types import CallToolResult
from pydantic import BaseModel

from sandbox.server import arguments as arg
from sandbox.server.content import denial_content
from sandbox.server.desk import caller_of
from sandbox.server.http.place import Http
from sandbox.server.tool import CallContext, ToolGroup, reply, tool
from sandbox.sessions.session import Session
from sandbox.terminals.models import TerminalInfo, TerminalView


class TerminalList(BaseModel):
    """The session's terminals."""

    terminals: list[TerminalInfo]


class TerminalTools(ToolGroup):
    """The tools that act on terminals."""

    @tool(
        "Open a terminal",
        http=Http(
            "POST",
            "/sessions/{session_id}/terminals",
            201,
            location="/sessions/{session_id}/terminals/{terminal_id}",
        ),
    )
    async def open_terminal(
        self,
        ctx: CallContext,
        session_id: arg.SessionId = "",
        rows: arg.Rows = 24,
        cols: arg.Columns = 80,
        cwd: arg.Folder = "",
    ) -> Annotated[CallToolResult, TerminalInfo]:
        """Open a terminal with a shell, for programs that ask or draw: a REPL, an editor, top."""
        async with self._desk.session(ctx, session_id, "open_terminal") as session:
            return _described(await session.terminals.open(rows=rows, cols=cols, cwd=cwd))

    @tool(
        "Type into a terminal",
        destroys=True,
        http=Http(
            "POST",
            "/sessions/{session_id}/terminals/{terminal_id}/input",
            query=("wait", "after"),
            is_large=True,
        ),
    )
    async def write_terminal(
        self,
        ctx: CallContext,
        terminal_id: arg.TerminalId,
        text: arg.Typed = "",
        keys: arg.Keys = (),
        session_id: arg.SessionId = "",
        wait: arg.ShortWait = 0.5,
        after: arg.Position = None,
    ) -> Annotated[CallToolResult, TerminalView]:
        """Type text, then press keys, wait for the program's answer and tell what the terminal
        shows. A line end in the text enters a line; several lines are pasted into a shell, which
        runs them in order."""
        async with self._desk.session(ctx, session_id, "write_terminal") as session:
            await session.terminals.write(terminal_id, text, keys, may_paste=True)
            return await self._shown(ctx, session, terminal_id, wait, after)

    @tool(
        "Read a terminal",
        http=Http("GET", "/sessions/{session_id}/terminals/{terminal_id}"),
    )
    async def read_terminal(
        self,
        ctx: CallContext,
        terminal_id: arg.TerminalId,
        session_id: arg.SessionId = "",
        wait: arg.ShortWait = 0,
        after: arg.Position = None,
    ) -> Annotated[CallToolResult, TerminalView]:
        """Answer what is new in a terminal since your last read, and its screen as it looks now."""
        async with self._desk.session(ctx, session_id, "read_terminal") as session:
            return await self._shown(ctx, session, terminal_id, wait, after)

    @tool(
        "Resize a terminal",
        repeatable=True,
        http=Http("PUT", "/sessions/{session_id}/terminals/{terminal_id}"),
    )
    async def resize_terminal(
        self,
        ctx: CallContext,
        terminal_id: arg.TerminalId,
        rows: arg.Rows,
        cols: arg.Columns,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, TerminalInfo]:
        """Give a terminal another height in lines and width in characters."""
        async with self._desk.session(ctx, session_id, "resize_terminal") as session:
            return _described(await session.terminals.resize(terminal_id, rows, cols))

    @tool(
        "Close a terminal",
        destroys=True,
        http=Http("DELETE", "/sessions/{session_id}/terminals/{terminal_id}"),
    )
    async def close_terminal(
        self, ctx: CallContext, terminal_id: arg.TerminalId, session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, TerminalInfo]:
        """Close a terminal and end what runs in it."""
        async with self._desk.session(ctx, session_id, "close_terminal") as session:
            return _described(await session.terminals.close(terminal_id))

    @tool(
        "List terminals",
        reads=True,
        http=Http("GET", "/sessions/{session_id}/terminals", items="terminals"),
    )
    async def list_terminals(
        self, ctx: CallContext, session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, TerminalList]:
        """List the session's terminals, and which of them still run."""
        async with self._desk.session(ctx, session_id, "list_terminals") as session:
            found = TerminalList(terminals=list(session.terminals.infos))
        lines = [_line(terminal) for terminal in found.terminals]
        return reply(found, "\n".join(lines) or "No terminal is open.")

    async def _shown(
        self, ctx: CallContext, session: Session, terminal_id: str, wait_s: float, after: int | None
    ) -> CallToolResult:
        """What a terminal shows to this conversation, which has a place of its own in it."""
        view = await session.terminals.read(
            terminal_id, wait_s, reader=caller_of(ctx).default_key, after=after
        )
        lines = [line.rstrip() for line in view.screen]
        while lines and not lines[-1]:
            lines.pop()
        state = "" if view.alive else f"\n[the program ended with exit code {view.exit_code}]"
        if view.wait_ended in _ENDS:
            state = f"\n[{_ENDS[view.wait_ended]}]"
        return reply(view, "\n".join(lines) + state, *denial_content(view.denials))


_ENDS = {
    "prompt": "the prompt is back",
    "quiet": "nothing more came for a moment",
    "time": "the time to wait is over, more may come: read_terminal",
}


def _described(terminal: TerminalInfo) -> CallToolResult:
    return reply(terminal, _line(terminal))


def _line(terminal: TerminalInfo) -> str:
    state = "running" if terminal.alive else f"ended with exit code {terminal.exit_code}"
    return f"Terminal {terminal.terminal_id}: {terminal.rows} x {terminal.cols}, {state}."
