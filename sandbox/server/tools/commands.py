"""Commands: one process run to its end."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ContentBlock

from sandbox.processes import CommandResult
from sandbox.server import arguments as arg
from sandbox.server.content import denial_content, shortened
from sandbox.server.desk import Desk
from sandbox.server.tool import reply, strict, text

MAX_OUTPUT_BYTES = 192 * 1024
"""What fits into one message, however it is escaped; a policy may say less."""


class CommandTools:
    """The tool that runs commands."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def tools(self) -> list[Tool]:
        """The tools of this group."""
        return [strict(self.run_command, "Run a command", destroys=True)]

    async def run_command(
        self,
        ctx: Context[Any, Any],
        command: arg.Command,
        session_id: arg.SessionId = "",
        timeout: arg.Timeout = 0,
        cwd: arg.Folder = "",
        stdin: arg.Stdin = "",
    ) -> Annotated[CallToolResult, CommandResult]:
        """Run a shell command in the sandbox to its end and answer its exit code, standard output
        and standard error.

        It sees the same files as the kernels, but not their variables. When the timeout, in
        seconds, is over, or you give the call up, the command and everything it started is killed.
        A non-zero exit code is a result, not a failed call. For programs that ask or draw on a
        screen use open_terminal.
        """
        async with self._desk.session(ctx, session_id, "run_command") as session:
            result = await session.processes.run(
                command,
                timeout_s=timeout or None,
                cwd=cwd,
                stdin=stdin.encode(),
                output_limit_bytes=MAX_OUTPUT_BYTES,
            )
        return reply(result, *_content(result), failed=result.timed_out)


def _content(result: CommandResult) -> list[ContentBlock]:
    blocks: list[ContentBlock] = []
    if result.stdout:
        blocks.append(text(shortened(result.stdout)))
    if result.stderr:
        blocks.append(text(f"stderr:\n{shortened(result.stderr)}"))
    blocks += denial_content(result.denials)
    if result.timed_out:
        end = "timed out and was killed with everything it started"
    elif result.signal is not None:
        end = f"killed by signal {result.signal}"
    else:
        end = f"exit code {result.exit_code}"
    cut = (
        f"; {result.truncated_bytes} bytes of output were left out"
        if result.truncated_bytes
        else ""
    )
    blocks.append(text(f"[{end} after {result.duration_s:.2f} s{cut}]"))
    return blocks
