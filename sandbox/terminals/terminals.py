"""All terminals of one session."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import anyio
from anyio.abc import TaskGroup
from pydantic import Field, StringConstraints

from sandbox.answers import Answer, linked, parse
from sandbox.bulkheads.overruns import Overruns
from sandbox.errors import InfrastructureError, InvalidRequest, NotFound, QuotaExceeded
from sandbox.link.link import Link
from sandbox.outputs.denials import DenialLog
from sandbox.outputs.eventlog import Read
from sandbox.outputs.redaction import Redactor
from sandbox.policy.models import Limits
from sandbox.terminals.models import TerminalInfo, TerminalView

if TYPE_CHECKING:  # it takes a while to load, and most sessions open no terminal
    from sandbox.terminals.terminal import Terminal

MAX_ROWS = 500
MAX_COLS = 1000
MAX_TEXT_BYTES = 64 * 1024
MAX_KEYS = 1000
MAX_LISTED = 256
_Pid = Annotated[int, Field(ge=0, lt=2**31)]

logger = logging.getLogger(__name__)


class OpenedTerminal(Answer):
    pid: _Pid


class ListedTerminal(Answer):
    """A terminal as the supervisor lists it."""

    terminal_id: Annotated[str, StringConstraints(pattern=r"^t-[a-z0-9]{1,32}$")]
    pid: _Pid
    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    cols: Annotated[int, Field(ge=1, le=MAX_COLS)]
    alive: bool
    exit_code: int | None
    last_offset: Annotated[int, Field(ge=0, lt=2**63)]


class TerminalListing(Answer):
    terminals: Annotated[list[ListedTerminal], Field(max_length=MAX_LISTED)]


class Terminals:
    """The terminals of one session; :meth:`run` must be running.

    Args:
        admit: Called before a shell is started or text typed; raises when its caller has no
            processor time left.
    """

    def __init__(
        self,
        limits: Limits,
        denials: DenialLog | None = None,
        *,
        admit: Callable[[], None] = lambda: None,
        redactor: Redactor | None = None,
        overruns: Overruns | None = None,
    ) -> None:
        self._admit = admit
        self._overruns = overruns or Overruns()
        self._limits = limits
        self._denials = denials or DenialLog()
        self._redactor = redactor or Redactor()
        self._terminals: dict[str, Terminal] = {}
        self._opening = 0
        self._link: Link | None = None
        self._tasks: TaskGroup | None = None
        self._is_running = anyio.Event()

    @property
    def last_activity_at(self) -> float:
        """Unix time at which something was last typed or shown; 0 when there was nothing."""
        return max((t.last_activity_at for t in self._terminals.values()), default=0.0)

    async def run(self) -> None:
        """Serve the terminals until cancelled; their programs live on."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._is_running.set()
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            for terminal in self._terminals.values():
                terminal.close()

    async def attach(self, link: Link) -> None:
        """Go on over this link, also with terminals that an earlier controller has opened, or, over
        the same one again, somebody else.

        Raises:
            LinkLost: The link ended.
            ProtocolError: The supervisor's list of terminals makes no sense.
        """
        await self._is_running.wait()
        listed = parse(TerminalListing, await link.call("terminal.list")).terminals
        self._link = link
        known = {entry.terminal_id for entry in listed}
        for terminal_id, terminal in self._terminals.items():
            if terminal_id not in known:
                terminal.end(None)
        for entry in listed:
            if entry.terminal_id not in self._terminals:
                if len(self._terminals) >= MAX_LISTED:
                    continue  # made up, by a supervisor that lists other ones over each link
                self._serve(entry.terminal_id, entry.rows, entry.cols, entry.pid, entry.last_offset)
            if not self._terminals[entry.terminal_id].is_read_over(link):
                self._pump(self._terminals[entry.terminal_id], link)
        for terminal in tuple(self._terminals.values()):
            await terminal.wait_attached()

    async def open(self, *, rows: int = 24, cols: int = 80, cwd: str = "") -> TerminalInfo:
        """Open a terminal with a shell, which starts in a folder relative to the workspace.

        Raises:
            QuotaExceeded: The policy lets the session have no more terminals.
        """
        _check_size(rows, cols)
        if "\0" in cwd:
            raise InvalidRequest("The directory holds a NUL character.")
        link = linked(self._link)
        if len(self._terminals) + self._opening >= self._limits.terminals:
            raise QuotaExceeded(
                f"The session has as many terminals as its policy allows "
                f"({self._limits.terminals}).",
                remedy="Close one first.",
            )
        self._admit()
        terminal_id = f"t-{secrets.token_hex(4)}"
        where = {"cwd": cwd} if cwd else {}
        self._opening += 1
        try:
            answer = await link.call(
                "terminal.open", terminal_id=terminal_id, rows=rows, cols=cols, **where
            )
        finally:
            self._opening -= 1
        terminal = self._serve(terminal_id, rows, cols, parse(OpenedTerminal, answer).pid)
        self._pump(terminal, link)
        await terminal.wait_attached()
        return terminal.info()

    async def write(
        self,
        terminal_id: str,
        text: str = "",
        keys: Sequence[str] = (),
        *,
        may_paste: bool = False,
    ) -> None:
        """Type text, then press named keys.

        Args:
            text: As it is; it presses no enter at its end.
            keys: Such as ``enter``, ``ctrl-c``, ``up`` (see ``sandbox.terminals.keys``).
            may_paste: Whether text of several lines is pasted if the program takes pastes, instead
                of typed: for text that is written as a whole, and not key by key.

        Raises:
            Conflict: Its program has ended, or does not read.
        """
        if len(text.encode("utf-8", "replace")) > MAX_TEXT_BYTES or len(keys) > MAX_KEYS:
            raise InvalidRequest(
                f"At most {MAX_TEXT_BYTES:,} bytes and {MAX_KEYS} keys are typed at once.",
                remedy="Write long text into a file.",
            )
        terminal = self._get(terminal_id)
        if text:  # keys alone may be the ctrl-c that ends what uses it up
            self._admit()
        await terminal.type(text, keys, may_paste=may_paste)

    async def read(
        self, terminal_id: str, wait_s: float = 0.0, *, reader: str = "", after: int | None = None
    ) -> TerminalView:
        """What is new to a reader, and the screen as it looks now.

        Args:
            wait_s: Seconds to wait at most for something new to come and settle.
            reader: Who reads: each has a place of its own, for as long as it is remembered.
            after: The position after which it is new; where the reader was when None.
        """
        return await self._get(terminal_id).read(wait_s, reader, after)

    def pass_on(self, reader: str, to: str) -> None:
        """Let another reader go on at this one's places."""
        for terminal in self._terminals.values():
            terminal.pass_on(reader, to)

    def follow(self, terminal_id: str, position: int = 0) -> AsyncGenerator[Read[bytes]]:
        """What came after a position, and what comes, as bytes; see :meth:`Terminal.follow`."""
        return self._get(terminal_id).follow(position)

    async def resize(self, terminal_id: str, rows: int, cols: int) -> TerminalInfo:
        """Give a terminal another size."""
        _check_size(rows, cols)
        terminal = self._get(terminal_id)
        link = linked(self._link)
        await link.call("terminal.resize", terminal_id=terminal_id, rows=rows, cols=cols)
        terminal.resize(rows, cols)
        return terminal.info()

    async def close(self, terminal_id: str) -> TerminalInfo:
        """End a terminal's program and forget the terminal."""
        terminal = self._get(terminal_id)
        with suppress(NotFound):  # the supervisor may have forgotten it before we did
            await linked(self._link).call("terminal.close", terminal_id=terminal_id)
        terminal.end(terminal.info().exit_code)
        self._terminals.pop(terminal_id, None)
        terminal.close()
        return terminal.info()

    @property
    def infos(self) -> tuple[TerminalInfo, ...]:
        """All terminals as they are now, those whose program has ended too."""
        return tuple(terminal.info() for terminal in self._terminals.values())

    # --- inside

    def _serve(
        self, terminal_id: str, rows: int, cols: int, pid: int, answer_from: int = 0
    ) -> Terminal:
        from sandbox.terminals.terminal import Terminal

        terminal = self._terminals[terminal_id] = Terminal(
            terminal_id,
            rows,
            cols,
            pid,
            answer_from,
            denials=self._denials,
            redactor=self._redactor,
            overruns=self._overruns,
        )
        self._group().start_soon(self._run, terminal, terminal.draw)
        return terminal

    def _pump(self, terminal: Terminal, link: Link) -> None:
        terminal.attach(link)
        self._group().start_soon(self._run, terminal, lambda: terminal.pump(link))

    async def _run(self, terminal: Terminal, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await terminal.while_open(work)
        except Exception:  # the outermost edge of a terminal: the session's others go on
            logger.exception("terminal %s failed", terminal.terminal_id)
            terminal.end(None)

    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise InfrastructureError("The session is closed.")
        return self._tasks

    def _get(self, terminal_id: str) -> Terminal:
        terminal = self._terminals.get(terminal_id)
        if terminal is None:
            raise NotFound(
                f"There is no terminal {terminal_id!r:.80}.", remedy="List or open terminals."
            )
        return terminal


def _check_size(rows: int, cols: int) -> None:
    if not (1 <= rows <= MAX_ROWS and 1 <= cols <= MAX_COLS):
        raise InvalidRequest(
            f"A terminal has 1 to {MAX_ROWS} rows and 1 to {MAX_COLS} columns, "
            f"not {rows} and {cols}."
        )
