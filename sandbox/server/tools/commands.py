"""Commands: processes that run to their end, however long that takes."""

from __future__ import annotations

from typing import Annotated

import anyio
from mcp_types import CallToolResult

from sandbox.commands.command import Command
from sandbox.commands.models import CommandRequest, CommandResult
from sandbox.commands.report import report
from sandbox.policy import Policy
from sandbox.server import arguments as arg
from sandbox.server.advice import advised_command
from sandbox.server.content import command_content, told
from sandbox.server.desk import ASKING_INTERVAL_S, caller_of
from sandbox.server.http.place import Http
from sandbox.server.results import MAX_TEXT, CommandSummary, command_summary
from sandbox.server.tool import CallContext, ToolGroup, tool
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

FAILED = frozenset({"timeout", "lost"})
MAX_WHOLE = 96 * 1024
"""The bytes of output that are told of a command in full: twice in one message, however escaped."""


class CommandTools(ToolGroup):
    """The tools that run commands and answer what came of it."""

    @tool(
        "Run a command",
        destroys=True,
        http=Http(
            "POST",
            "/sessions/{session_id}/commands",
            201,
            query=("wait",),
            location="/sessions/{session_id}/commands/{command_id}",
            is_large=True,
        ),
    )
    async def run_command(
        self,
        ctx: CallContext,
        command: arg.Command,
        session_id: arg.SessionId = "",
        timeout: arg.Timeout = 0,
        cwd: arg.Folder = "",
        stdin: arg.Stdin = "",
        wait: arg.Wait = arg.DEFAULT_WAIT_S,
    ) -> Annotated[CallToolResult, CommandSummary]:
        """Run a command line in bash and answer its exit code, stdout and stderr.

        It shares files with the kernels, not variables. A non-zero exit code is no failed call.
        After `wait` seconds it answers `running` and goes on: get_command asks again, stop_command
        ends it. For programs that ask or draw use open_terminal.
        """
        async with self._desk.session(ctx, session_id, "run_command") as session:
            started = session.commands.start(
                CommandRequest(command, cwd, stdin.encode(), timeout_s=timeout or None)
            )
            try:
                await self._follow(session, started, wait)
            except anyio.get_cancelled_exc_class():
                # Where the caller gave the call up, nobody waits for the command any more.
                if self._desk.gave_up(ctx):
                    with anyio.CancelScope(shield=True):
                        await session.commands.stop(started)
                raise
            return self._answer(started, session.policy, caller_of(ctx))

    @tool(
        "See how a command stands",
        reads=True,
        http=Http(
            "GET", "/sessions/{session_id}/commands/{command_id}", defaults={"detail": "full"}
        ),
    )
    async def get_command(
        self,
        ctx: CallContext,
        command_id: arg.CommandId,
        wait: arg.Wait = 0,
        session_id: arg.ItsSessionId = "",
        detail: arg.CommandDetail = "brief",
    ) -> Annotated[CallToolResult, CommandSummary]:
        """See how a command stands, with its output so far.

        Giving this call up does not stop it; stop_command does.
        """
        limit = MAX_WHOLE if detail == "full" else MAX_TEXT
        return await self._told(ctx, "get_command", command_id, session_id, wait, limit=limit)

    @tool(
        "Stop a command",
        destroys=True,
        http=Http("DELETE", "/sessions/{session_id}/commands/{command_id}"),
    )
    async def stop_command(
        self, ctx: CallContext, command_id: arg.CommandId, session_id: arg.ItsSessionId = ""
    ) -> Annotated[CallToolResult, CommandSummary]:
        """Stop a command with everything it started, and answer what it wrote."""
        return await self._told(ctx, "stop_command", command_id, session_id, stop=True)

    async def _told(
        self,
        ctx: CallContext,
        name: str,
        command_id: str,
        session_id: str,
        wait_s: float = 0,
        *,
        limit: int = MAX_TEXT,
        stop: bool = False,
    ) -> CallToolResult:
        caller = caller_of(ctx)
        found = await self._manager.command(caller, command_id)
        known = report(found, 0) if isinstance(found, Command) else found
        async with self._desk.session_of(ctx, known, name, session_id) as session:
            policy = self._desk.policy_of(caller, known.session_id)
            if session and isinstance(found, Command):
                if stop:
                    await session.commands.stop(found)
                await self._follow(session, found, wait_s)
        return self._answer(found, policy, caller, limit)

    async def _follow(self, session: Session, command: Command, wait_s: float) -> None:
        """Wait for a command's end, and for as long as the call is needed to ask a person."""
        with self._desk.waiting():
            await command.wait(wait_s)
        while session.approvals.is_asking and not (command.is_over or self._desk.is_stopping):
            with self._desk.waiting():
                await command.wait(ASKING_INTERVAL_S)

    def _answer(
        self, found: Command | CommandResult, policy: Policy, caller: Caller, limit: int = MAX_TEXT
    ) -> CallToolResult:
        result = report(found, 2 * limit) if isinstance(found, Command) else found
        result = advised_command(result, policy, self._manager.policies, caller)
        summary = command_summary(result, max_text=limit)
        return told(summary, command_content(summary), failed=result.status in FAILED)
