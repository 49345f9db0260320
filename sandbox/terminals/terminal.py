"""One terminal: what came from it, what its screen shows, and what is typed."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from time import thread_time
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from sandbox.answers import no_link
from sandbox.bulkheads.overruns import Overruns
from sandbox.errors import Conflict, ProtocolError, SandboxError, TooMuchWork
from sandbox.link import wire
from sandbox.link.link import Link, Stream
from sandbox.link.turn import Turn
from sandbox.outputs.denials import DenialLog
from sandbox.outputs.eventlog import EventLog, Read
from sandbox.outputs.redaction import Pieces, Redactor
from sandbox.terminals.answer import QUIET_S, Typing
from sandbox.terminals.keys import encode_keys
from sandbox.terminals.models import Cursor, TerminalInfo, TerminalView, WaitEnd
from sandbox.terminals.paste import is_pasted, pasted, without_marks
from sandbox.terminals.readers import Readers, new_text
from sandbox.terminals.screen import Display

KEPT_BYTES = 256 * 1024
"""What is kept for those who read, and to be drawn; the oldest goes first."""
PIECE_BYTES = 4096
"""What is drawn at once."""
DRAW_S = 0.005
"""The longest that drawing holds up everything else."""
DRAW_SHARE = 0.1
"""The part of the time that goes into drawing while nobody looks."""
CATCH_UP_S = 2.0
START_S = 2.0
"""A program that has shown nothing yet is waited for before something is pasted: only then is known
whether it takes pastes."""
TYPE_TIMEOUT_S = 10.0
MAX_OFFSET = 2**63

logger = logging.getLogger(__name__)


class Terminal:
    """A terminal of a session; :meth:`draw` must be running, and :meth:`pump` for each link.

    What came from it is a log of bytes, without secrets: what may be the beginning of one is held
    back until more has come. A position is an offset, counted from its first byte.

    Args:
        answer_from: The offset from which on questions of the program are answered; those before
            were answered by an earlier controller.
    """

    def __init__(
        self,
        terminal_id: str,
        rows: int,
        cols: int,
        pid: int,
        answer_from: int = 0,
        *,
        denials: DenialLog,
        redactor: Redactor,
        overruns: Overruns,
    ) -> None:
        self.terminal_id = terminal_id
        self.last_activity_at = time.time()
        self._rows = rows
        self._cols = cols
        self._pid = pid
        self._answer_from = answer_from
        self._denials = denials
        self._pieces = Pieces(redactor)
        self._redactor = redactor
        self._overruns = overruns
        self._turn = Turn()
        self._display = Display(rows, cols)
        self._log = EventLog.bytes_log(KEPT_BYTES, piece_bytes=PIECE_BYTES)
        self._readers = Readers(denials.mark())
        self._drawn = 0
        """The position up to which the screen shows what came."""
        self._offset = 0
        """Of the supervisor's bytes: what was held back or taken out is not in the log."""
        self._stream: Stream | None = None
        self._is_alive = True
        self._exit_code: int | None = None
        self._came_at = 0.0
        self._typing: Typing | None = None
        self._watchers = 0
        self._attaching: Link | None = None
        self._is_closed = False
        self._scopes: set[anyio.CancelScope] = set()

    def info(self) -> TerminalInfo:
        """The terminal as it is now."""
        return TerminalInfo(
            terminal_id=self.terminal_id,
            rows=self._rows,
            cols=self._cols,
            pid=self._pid,
            alive=self._is_alive,
            exit_code=self._exit_code,
        )

    # --- what callers do

    async def type(self, text: str, keys: Sequence[str], *, may_paste: bool = False) -> None:
        """Type or paste text, then press keys; see :meth:`Terminals.write`.

        Raises:
            InvalidRequest: A name stands for no key.
            Conflict: The program has ended, or does not take what is typed.
            LinkLost: There is no link.
        """
        encode_keys(keys)  # what is no key is refused before anything is awaited
        if not self._is_alive:
            raise Conflict(
                f"The program of the terminal {self.terminal_id} has ended.",
                remedy="Open another terminal.",
            )
        stream = self._stream
        if stream is None:
            raise no_link()
        if may_paste:
            text = await self._as_paste(text)
        pressed = encode_keys(keys, application_cursor=self._display.application_cursor)
        data = (text + pressed).encode("utf-8", "replace")
        self._typing = Typing.now(time.monotonic(), self._log.end, data, self._display)
        self.last_activity_at = time.time()
        try:
            with anyio.fail_after(TYPE_TIMEOUT_S):
                await stream.send(data)
        except TimeoutError as exc:
            raise Conflict(
                f"The program of the terminal {self.terminal_id} does not read what is typed.",
                remedy="Press ctrl-c, or close the terminal.",
            ) from exc

    def pass_on(self, reader: str, to: str) -> None:
        """Let another reader go on at this one's place."""
        self._readers.pass_on(reader, to)

    async def read(self, wait_s: float, reader: str = "", after: int | None = None) -> TerminalView:
        """Wait until something new has come and settled, and return what is new and the screen; see
        :meth:`Terminals.read`.

        Raises:
            TooMuchWork: What it shows takes too long to tell; the screen is empty now.
        """
        place = self._readers.get(reader)
        start = place.position if after is None else after
        typing = self._typing
        if typing is not None and typing.at < place.read_at:
            typing = None  # what came of it was told already
        ended: WaitEnd = ""
        self._watchers += 1
        try:
            if wait_s > 0:
                ended = await self._settle(start, typing, time.monotonic() + wait_s)
            await self._catch_up()
        finally:
            self._watchers -= 1
        try:
            with self._overruns.section("a terminal's screen"):
                new, screen = new_text(self._log, start), self._display.lines()
                text, screen = self._redactor.text(new.text), list(map(self._redactor.text, screen))
        except TooMuchWork as exc:
            self._overruns.note(exc)
            self._begin_anew(0)
            raise
        row, col = self._display.cursor
        denied = self._denials.since(place.denials)
        place.position, place.read_at = new.position, time.monotonic()
        place.denials = self._denials.mark()
        return TerminalView(
            terminal_id=self.terminal_id,
            new_text=text,
            position=new.position,
            screen=screen,
            cursor=Cursor(row=row, col=col),
            alive=self._is_alive,
            exit_code=self._exit_code,
            wait_ended=ended,
            dropped_bytes=new.dropped,
            denials=denied,
        )

    def follow(self, position: int = 0) -> AsyncGenerator[Read[bytes]]:
        """What came after a position, and what comes, as bytes for another terminal to draw.

        Any number may follow; one that is too slow is told how many bytes it missed. It ends with
        the program, or when the terminal is closed.
        """
        return self._log.follow(position)

    def resize(self, rows: int, cols: int) -> None:
        """Its window has another size now."""
        self._rows, self._cols = rows, cols
        self._display.resize(rows, cols)

    # --- what its session's terminals do

    async def wait_attached(self) -> None:
        """Wait until what is typed can be sent, or the attempt has failed."""
        while self._attaching is not None:
            await self._log.changed()

    async def while_open(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something until the terminal is closed."""
        if self._is_closed:
            return
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await work()
            finally:
                self._scopes.discard(scope)

    def close(self) -> None:
        """Let go of it."""
        self._is_closed = True
        self._attaching = None
        for scope in self._scopes:
            scope.cancel()
        self._log.finish()

    def attach(self, link: Link) -> None:
        """A link is there: :meth:`pump` is about to run."""
        self._attaching = link
        self._turn = link.turn

    def is_read_over(self, link: Link) -> bool:
        """Whether :meth:`pump` takes what comes over this link."""
        return self._turn is link.turn and (self._attaching is link or self._stream is not None)

    async def pump(self, link: Link) -> None:
        """Take what comes over one link, until that or the program ends."""
        stream: Stream | None = None
        try:
            stream = link.open("terminal.attach", terminal_id=self.terminal_id, after=self._offset)
            self._begin(await stream.receive_json())
            self._stream = stream
            self._attached(link)
            async for message in stream:
                if message.tag == wire.BYTES:
                    self._take(message.data)
                elif message.tag == wire.JSON:
                    self.end(message.json().get("exit_code"))
        except ProtocolError as exc:
            logger.warning("terminal %s: %s; closing the link", self.terminal_id, exc)
            await link.aclose()
        except SandboxError as exc:
            logger.info("terminal %s is no longer attached: %s", self.terminal_id, exc)
        finally:
            if stream is not None:
                stream.reset()
            if self._stream is stream:
                self._stream = None
            self._attached(link)

    async def draw(self) -> None:
        """Draw what comes, with little effort while nobody looks."""
        while True:
            if await self._draw_some():
                await self._log.changed()
            else:
                await anyio.sleep(0 if self._watchers else DRAW_S / DRAW_SHARE)

    def end(self, exit_code: Any) -> None:
        """Its program has ended."""
        self._is_alive = False
        self._exit_code = exit_code if type(exit_code) is int and 0 <= exit_code < 256 else None
        self._show(self._pieces.last())
        self._log.finish()

    # --- inside

    def _begin(self, answer: dict[str, Any]) -> None:
        offset = answer.get("offset")
        if type(offset) is not int or not 0 <= offset < MAX_OFFSET:
            raise ProtocolError("the supervisor did not say where a terminal's output starts")
        if offset > self._offset:
            self._show(self._pieces.last())
            self._log.skip(offset - self._offset)
        self._offset = offset

    def _take(self, data: bytes) -> None:
        self._offset += len(data)
        self._came_at = time.monotonic()
        self.last_activity_at = time.time()
        try:
            with self._overruns.section("a terminal's output"):
                shown = self._pieces.feed(data)
        except TooMuchWork as exc:
            self._overruns.note(exc, data)
            self._begin_anew(len(data))
        else:
            self._show(shown)

    def _show(self, data: bytes) -> None:
        if data:
            self._log.append(data)

    def _begin_anew(self, lost: int) -> None:
        """Something was stopped half-way: go on with an empty screen, and without what came."""
        self._log.skip(lost)
        self._drawn = self._log.end
        self._pieces = Pieces(self._redactor)
        self._display = Display(self._rows, self._cols)

    async def _draw_some(self) -> bool:
        """Draw for a moment; True when there is nothing left to draw."""
        await self._turn.rest()
        display = self._display
        if display.is_drawn and (got := self._log.read(self._drawn, 1)).entries:
            piece = got.entries[0][:PIECE_BYTES]
            self._drawn = got.position - len(got.entries[0]) + len(piece)
            display.write(piece)
        began = thread_time()
        try:
            with self._overruns.section("the drawing of a terminal"):
                display.draw(DRAW_S)
        except TooMuchWork as exc:
            self._overruns.note(exc)
            self._begin_anew(0)
        self._turn.charge(thread_time() - began)
        answer = display.take_answer()
        if answer and self._drawn > self._answer_from and self._stream is not None:
            with suppress(SandboxError), anyio.move_on_after(0.1):
                await self._stream.send(answer.encode())
        return self._display.is_drawn and self._drawn >= self._log.end

    async def _catch_up(self) -> None:
        """Draw all that came, for a bounded time."""
        with anyio.move_on_after(CATCH_UP_S):
            while not await self._draw_some():
                await checkpoint()

    async def _as_paste(self, text: str) -> str:
        """The text as the program that reads now wants it."""
        if is_pasted(text) and not self._log.end:
            await self._settle(0, None, time.monotonic() + START_S)
        await self._catch_up()
        if not self._display.takes_pastes:
            return text
        text = without_marks(text)
        return pasted(text) if is_pasted(text) else text

    async def _settle(self, position: int, typing: Typing | None, until: float) -> WaitEnd:
        """Wait for the answer to what was typed, or for anything past a position, to settle."""
        while self._is_alive and (left_s := until - time.monotonic()) > 0:
            quiet_s = time.monotonic() - self._came_at
            if quiet_s < QUIET_S:
                left_s = min(left_s, QUIET_S - quiet_s)
            else:
                await self._catch_up()
                if (answer := self._answer(position, typing)) is not None:
                    reason, moment_s = answer
                    left_s = min(left_s, self._came_at + moment_s - time.monotonic())
                    if left_s <= 0:
                        return reason
            with anyio.move_on_after(left_s):
                await self._log.changed()
        return "time" if self._is_alive else "exit"

    def _answer(self, position: int, typing: Typing | None) -> tuple[WaitEnd, float] | None:
        if typing is not None:
            return typing.answered(self._log.end, self._display)
        if self._log.end <= position:
            return None
        return "prompt" if self._display.takes_pastes else "quiet", QUIET_S

    def _attached(self, link: Link) -> None:
        if self._attaching is link:
            self._attaching = None
        self._log.wake()
