"""The commands of one session: started, followed over one link after the other, and remembered.

Each command has a task here that reads what the supervisor keeps of it. A link may end at any time:
the command runs on, and the next link goes on behind the last byte read.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import TaskGroup

from sandbox.answers import no_link
from sandbox.bulkheads.overruns import Overruns
from sandbox.commands import exchange, filters
from sandbox.commands.command import Command
from sandbox.commands.models import (
    KEPT_BYTES,
    CommandJournal,
    CommandRecord,
    CommandRequest,
    CommandResult,
    lost,
)
from sandbox.commands.report import report
from sandbox.errors import InfrastructureError, LinkLost, NotFound, QuotaExceeded, SandboxError
from sandbox.link.link import Link
from sandbox.outputs.denials import DenialLog
from sandbox.outputs.redaction import Redactor
from sandbox.policy.models import Limits

OVERTIME_S = 30.0
"""After its time a command is the supervisor's to kill; beyond this nobody waits for it."""
STOP_GRACE_S = 10.0
MAX_ENDED = 64
MAX_ENDED_BYTES = 32 * 1024 * 1024
"""Of ended commands in memory; the journal knows more of them, and less of each."""

logger = logging.getLogger(__name__)


class Commands:
    """The commands of one session; :meth:`serve` must be running.

    Args:
        admit: Called before a command is run; raises when its caller has run enough.
    """

    def __init__(
        self,
        session_id: str,
        limits: Limits,
        journal: CommandJournal,
        *,
        denials: DenialLog | None = None,
        admit: Callable[[], None] = lambda: None,
        redactor: Redactor | None = None,
        overruns: Overruns | None = None,
    ) -> None:
        self._session_id = session_id
        self._limits = limits
        self._journal = journal
        self._denials = denials or DenialLog()
        self._admit = admit
        self._redactor = redactor or Redactor()
        self._overruns = overruns or Overruns(session_id)
        self._commands: dict[str, Command] = {}
        self._link: Link | None = None
        self._known: frozenset[str] = frozenset()
        """The commands that the supervisor knew when it was linked to."""
        self._relinked = anyio.Event()
        self._is_adopted = False
        self._tasks: TaskGroup | None = None
        self._is_serving = anyio.Event()

    # --- life

    async def serve(self) -> None:
        """Serve the commands until cancelled; in the sandbox they run on."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._is_serving.set()
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    async def attach(self, link: Link) -> None:
        """Go on over this link; the first time, take over what an earlier controller left.

        Raises:
            LinkLost: The link ended.
            ProtocolError: The supervisor's list of commands makes no sense.
        """
        await self._is_serving.wait()
        known = await exchange.listed(link)
        self._link, self._known = link, known
        if not self._is_adopted:
            self._is_adopted = True
            self._adopt(self._journal.unfinished(self._session_id))
        self._relinked.set()
        self._relinked = anyio.Event()
        over = [name for name in known if self._is_done_with(self._commands.get(name))]
        if over and self._tasks is not None:
            self._tasks.start_soon(self._forget, link, *over)

    def lose(self, reason: str) -> None:
        """End all that has not ended: the sandbox is gone, or is about to be."""
        for command in tuple(self._commands.values()):
            command.end("lost", reason)
            if not command.is_noted:
                self._note_end(command)
        for record in self._journal.unfinished(self._session_id):  # as no link has adopted them
            self._journal.finished(lost(record, reason))

    # --- what callers do

    @property
    def is_busy(self) -> bool:
        """Whether a command runs."""
        return any(not command.is_over for command in self._commands.values())

    def start(self, request: CommandRequest) -> Command:
        """Start a command; wait for it to hear whether it could be.

        Raises:
            InvalidRequest: The command is empty, too long, or nothing that can be run.
            QuotaExceeded: The policy lets no more commands run at once, or a quota of the caller's
                is used up.
            LinkLost: There is no link at the moment.
            InfrastructureError: The journal cannot take it, so it must not be started.
        """
        request.check()
        if self._link is None or self._link.is_closed or self._tasks is None:
            raise no_link()
        running = sum(not command.is_over for command in self._commands.values())
        if running >= self._limits.processes:
            raise QuotaExceeded(
                f"{running} commands are running, which is as many as the policy allows.",
                remedy="Wait until one has ended, or stop one.",
            )
        self._admit()
        limit_s = self._limits.execution_s
        record = CommandRecord(
            command_id=f"c-{secrets.token_hex(8)}",
            session_id=self._session_id,
            command=request.command,
            cwd=request.cwd,
            started_at=time.time(),
            timeout_s=min(request.timeout_s or limit_s, limit_s),
        )
        self._journal.started(record)
        command = self._command(record, request)
        self._tasks.start_soon(self._live, command)
        return command

    def command(self, command_id: str) -> Command | CommandResult:
        """A command of this session: to be followed, or, when it ended long ago, how it ended.

        Raises:
            NotFound: There is none, or not any more.
        """
        found = self._commands.get(command_id) or self._journal.result(self._session_id, command_id)
        if found is None:
            raise NotFound(f"There is no command {command_id!r:.80}.")
        return found

    async def stop(self, command: Command) -> None:
        """Kill a command with all that it has started, and wait for its end, within a bound."""
        command.is_stop_asked = True
        with anyio.move_on_after(STOP_GRACE_S):
            if command.is_started and not command.is_over and self._link is not None:
                with suppress(SandboxError):  # then the next link does it
                    await exchange.stop(self._link, command)
            with suppress(SandboxError):
                await command.wait()

    async def run(
        self,
        command: str | tuple[str, ...],
        *,
        timeout_s: float | None = None,
        output_limit_bytes: int | None = None,
        **fields: Any,
    ) -> CommandResult:
        """Run a command to its end, and tell how that was; whoever cancels this stops it.

        Args:
            output_limit_bytes: What is shown of its output; the policy's limit when None.

        Raises:
            SandboxError: It could not be started.
        """
        started = self.start(CommandRequest(command, timeout_s=timeout_s, **fields))
        try:
            await started.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self.stop(started)
            raise
        return report(started, output_limit_bytes)

    def lines_of(
        self, argv: Sequence[str], given: bytes, *, timeout_s: float, limit_bytes: int
    ) -> AsyncGenerator[bytes]:
        """What a program of the controller's own makes of bytes: see :mod:`.filters`.

        Raises:
            LinkLost: There is no link at the moment.
        """
        if self._link is None or self._link.is_closed:
            raise no_link()
        return filters.lines_of(
            self._link, argv, given, timeout_s=timeout_s, limit_bytes=limit_bytes
        )

    # --- the task of one command

    async def _live(self, command: Command) -> None:
        """See to one command until it has ended, over one link after the other."""
        link = self._link
        try:
            while link is not None and not command.is_over:
                relinked = self._relinked
                try:
                    await self._go_on(link, command)
                except SandboxError as exc:
                    if not link.is_closed:
                        command.end("lost", exc.message)
                        break
                if command.is_over:
                    break
                if self._link is link:
                    await relinked.wait()
                link = self._link
                self._check_known(command)
        except Exception:  # the outermost edge of a command: the session's others go on
            logger.exception("command %s failed", command.command_id)
            command.end("lost", "The controller failed to serve this command.")
        if self._note_end(command) and self._link is not None:
            await self._forget(self._link, command.command_id)

    async def _go_on(self, link: Link, command: Command) -> None:
        if command.request is not None and not command.is_started:
            if command.is_stop_asked:
                command.end("stopped", "It was stopped before it was started.")
                return
            try:
                await exchange.start(link, command, command.request)
            except SandboxError as exc:
                if link.is_closed:
                    raise
                command.refuse(exc)
                return
        if command.is_stop_asked:
            await exchange.stop(link, command)
        left_s = command.record.timeout_s - command.duration_s
        with anyio.move_on_after(max(0.0, left_s) + OVERTIME_S):
            await exchange.read(link, command)
            return
        raise InfrastructureError(
            f"The supervisor did not end the command after {command.record.timeout_s:g} s."
        )

    def _check_known(self, command: Command) -> None:
        """After the link was lost: see whether the supervisor has the command."""
        if command.command_id in self._known:
            command.is_started = True
        elif command.is_started:
            command.end("lost", "The supervisor does not know it any more.")
        else:
            command.refuse(
                LinkLost(
                    "The link was lost before the command was started; nothing of it ran.",
                    remedy="Run it again.",
                )
            )

    async def _forget(self, link: Link, *command_ids: str) -> None:
        for command_id in command_ids:
            with suppress(SandboxError):  # then the next link does it
                await exchange.forget(link, command_id)

    # --- what is remembered

    def _adopt(self, records: Iterable[CommandRecord]) -> None:
        """Take over what an earlier controller has started."""
        for record in records:
            command = self._command(record, None)
            if record.command_id in self._known and self._tasks is not None:
                self._tasks.start_soon(self._live, command)
                continue
            reason = "It is not known whether it ran: the controller ended as it was started."
            command.end("lost", reason)
            self._note_end(command)

    def _command(self, record: CommandRecord, request: CommandRequest | None) -> Command:
        command = self._commands[record.command_id] = Command(
            record,
            request,
            limit_bytes=self._limits.output_bytes,
            denials=self._denials,
            redactor=self._redactor,
            overruns=self._overruns,
        )
        return command

    def _is_done_with(self, command: Command | None) -> bool:
        """Whether the supervisor may forget a command: nobody knows it, or the journal its end."""
        if command is None or command.is_noted:
            return True
        return command.is_over and self._note_end(command)

    def _note_end(self, command: Command) -> bool:
        """Write to the journal how a command ended; False when it cannot take that."""
        ended = [each for each in self._commands.values() if each.is_over]
        size = sum(each.size_bytes for each in ended)
        for oldest in ended[:-1]:
            if len(ended) <= MAX_ENDED and size <= MAX_ENDED_BYTES:
                break
            ended.remove(oldest)
            size -= oldest.size_bytes
            del self._commands[oldest.command_id]
        try:
            if command.refusal is not None:
                self._journal.refused(command.command_id)
                self._commands.pop(command.command_id, None)
            else:
                self._journal.finished(report(command, KEPT_BYTES))
        except SandboxError as exc:
            logger.error("the journal cannot take the end of %s: %s", command.command_id, exc)
            return False
        command.is_noted = True
        return True
