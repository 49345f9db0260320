"""Terminals: interactive programs on a screen."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult
from pydantic import BaseModel

from sandbox.server import arguments as arg
from sandbox.server.content import denial_content
from sandbox.server.desk import Desk
from sandbox.server.tool import reply, strict, text
from sandbox.terminals import TerminalInfo, TerminalView


class TerminalList(BaseModel):
    """The session's terminals."""

    terminals: list[TerminalInfo]


class TerminalTools:
    """The tools that act on terminals."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def tools(self) -> list[Tool]:
        """The tools of this group."""
        return [
            strict(self.open_terminal, "Open a terminal"),
            strict(self.write_terminal, "Type into a terminal", destroys=True),
            strict(self.read_terminal, "Read a terminal"),
            strict(self.resize_terminal, "Resize a terminal", repeatable=True),
            strict(self.close_terminal, "Close a terminal", destroys=True),
            strict(self.list_terminals, "List terminals", reads=True),
        ]

    async def open_terminal(
        self,
        ctx: Context[Any, Any],
        session_id: arg.SessionId = "",
        rows: arg.Rows = 24,
        cols: arg.Columns = 80,
        cwd: arg.Folder = "",
    ) -> Annotated[CallToolResult, TerminalInfo]:
        """Open a terminal with a shell, for programs that ask or draw: a REPL, an editor, top.

        Answers its terminal_id for write_terminal and read_terminal. It stays until
        close_terminal. For a command that just runs and ends use run_command.
        """
        async with self._desk.session(ctx, session_id, "open_terminal") as session:
            return _described(await session.terminals.open(rows=rows, cols=cols, cwd=cwd))

    async def write_terminal(
        self,
        ctx: Context[Any, Any],
        terminal_id: arg.TerminalId,
        text: arg.Typed = "",
        keys: arg.Keys = (),
        session_id: arg.SessionId = "",
        wait: arg.ShortWait = 0.5,
    ) -> Annotated[CallToolResult, TerminalView]:
        """Type text, then press named keys such as ["enter"] or ["ctrl-c"], and answer what the
        terminal shows then.

        Text alone does not press enter. `wait` is the most seconds to wait for something new to
        appear.
        """
        async with self._desk.session(ctx, session_id, "write_terminal") as session:
            await session.terminals.write(terminal_id, text, keys)
            return _shown(await session.terminals.read(terminal_id, wait_s=wait))

    async def read_terminal(
        self,
        ctx: Context[Any, Any],
        terminal_id: arg.TerminalId,
        session_id: arg.SessionId = "",
        wait: arg.ShortWait = 0,
    ) -> Annotated[CallToolResult, TerminalView]:
        """Answer what is new in the terminal since it was last read, and its screen as it looks
        now, as plain text, with the cursor's row and column.

        `wait` is the most seconds to wait for something new to appear.
        """
        async with self._desk.session(ctx, session_id, "read_terminal") as session:
            return _shown(await session.terminals.read(terminal_id, wait_s=wait))

    async def resize_terminal(
        self,
        ctx: Context[Any, Any],
        terminal_id: arg.TerminalId,
        rows: arg.Rows,
        cols: arg.Columns,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, TerminalInfo]:
        """Give the terminal another height in lines and width in characters."""
        async with self._desk.session(ctx, session_id, "resize_terminal") as session:
            return _described(await session.terminals.resize(terminal_id, rows, cols))

    async def close_terminal(
        self,
        ctx: Context[Any, Any],
        terminal_id: arg.TerminalId,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, TerminalInfo]:
        """Close the terminal and end what runs in it."""
        async with self._desk.session(ctx, session_id, "close_terminal") as session:
            return _described(await session.terminals.close(terminal_id))

    async def list_terminals(
        self, ctx: Context[Any, Any], session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, TerminalList]:
        """List the session's terminals: sizes, and whether their programs still run."""
        async with self._desk.session(ctx, session_id, "list_terminals") as session:
            found = TerminalList(terminals=await session.terminals.list())
        lines = [_line(terminal) for terminal in found.terminals]
        return reply(found, text("\n".join(lines) or "No terminal is open."))


def _described(terminal: TerminalInfo) -> CallToolResult:
    return reply(terminal, text(_line(terminal)))


def _line(terminal: TerminalInfo) -> str:
    state = "running" if terminal.alive else f"ended with exit code {terminal.exit_code}"
    return f"Terminal {terminal.terminal_id}: {terminal.rows} x {terminal.cols}, {state}."


def _shown(view: TerminalView) -> CallToolResult:
    lines = [line.rstrip() for line in view.screen]
    while lines and not lines[-1]:
        lines.pop()
    state = "" if view.alive else f"\n[the program ended with exit code {view.exit_code}]"
    return reply(view, text("\n".join(lines) + state), *denial_content(view.denials))
