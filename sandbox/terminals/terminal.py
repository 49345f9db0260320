"""One terminal: what came from it, what its screen shows, and what is typed."""

from __future__ import annotations

import asyncio
import codecs
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from sandbox import wire
from sandbox.denials import DenialLog
from sandbox.errors import Conflict, LinkLost, ProtocolError, SandboxError
from sandbox.link import Link, Stream
from sandbox.plaintext import PlainText
from sandbox.redaction import Pieces, Redactor
from sandbox.terminals.keys import encode_keys
from sandbox.terminals.models import Cursor, TerminalInfo, TerminalView
from sandbox.terminals.screen import Display

UNREAD_BYTES = 64 * 1024
"""What is kept for ``new_text``; the oldest goes first."""
UNDRAWN_BYTES = 256 * 1024
"""What may wait to be drawn; the oldest goes first."""
QUIET_S = 0.05
"""Output has settled when nothing came for this long."""
ECHO_EXTRA_BYTES = 16
"""What a shell adds to the echo of a line: a line end, and the end of its editing."""
DRAW_S = 0.005
"""The longest that drawing holds up everything else."""
DRAW_SHARE = 0.1
"""The part of the time that goes into drawing while nobody looks."""
CATCH_UP_S = 2.0
TYPE_TIMEOUT_S = 10.0
MAX_OFFSET = 2**63

logger = logging.getLogger(__name__)


class Terminal:
    """A terminal of a session; :meth:`draw` must be running, and :meth:`pump` for each link.

    Args:
        terminal_id: Its id.
        rows: Its height in lines.
        cols: Its width in characters.
        pid: Of its program.
        answer_from: The offset from which on questions of the program are answered; those before
            were answered by an earlier controller.
        denials: What the session's network policy refuses.
        redactor: Knows the session's secrets. What may be the beginning of one is not shown until
            more has come.
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
        self._denied_before = denials.mark()
        self._display = Display(rows, cols)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._plain = PlainText()
        self._unread = bytearray()
        self._undrawn = bytearray()
        self._dropped = 0
        self._offset = 0
        self._stream: Stream | None = None
        self._is_alive = True
        self._exit_code: int | None = None
        self._came_at = 0.0
        self._typed_at = 0.0
        self._echo = 0
        """The unread bytes that are but an echo of what was typed."""
        self._news = asyncio.Event()
        """Set, and replaced, with each change."""
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

    async def type(self, text: str, keys: Sequence[str]) -> None:
        """Type text, then press keys.

        Raises:
            InvalidRequest: A name stands for no key.
            Conflict: The program has ended, or does not take what is typed.
            LinkLost: There is no link.
        """
        pressed = encode_keys(keys, application_cursor=self._display.application_cursor)
        data = (text + pressed).encode("utf-8", "replace")
        if not self._is_alive:
            raise Conflict(
                f"The program of the terminal {self.terminal_id} has ended.",
                remedy="Open another terminal.",
            )
        if self._stream is None:
            raise LinkLost("There is no link to the sandbox at the moment.", remedy="Try again.")
        self._typed_at = time.monotonic()
        if b"\r" in data or b"\n" in data:  # whoever enters a line wants more than its echo
            self._echo = len(self._unread) + len(data) + ECHO_EXTRA_BYTES
        self.last_activity_at = time.time()
        try:
            async with asyncio.timeout(TYPE_TIMEOUT_S):
                await self._stream.send(data)
        except TimeoutError as exc:
            raise Conflict(
                f"The program of the terminal {self.terminal_id} does not read what is typed.",
                remedy="Press ctrl-c, or close the terminal.",
            ) from exc

    async def read(self, wait_s: float) -> TerminalView:
        """Wait until something new has come and settled, and return what is new and the screen.

        Args:
            wait_s: Seconds to wait at most; 0 to return what there is.
        """
        self._watchers += 1
        try:
            await self._settle(time.monotonic() + wait_s)
            with anyio.move_on_after(CATCH_UP_S):
                while not await self._draw_some():
                    await checkpoint()
        finally:
            self._watchers -= 1
        text = self._plain.feed(self._decoder.decode(bytes(self._unread)))
        text += self._plain.flush()
        dropped, self._dropped = self._dropped, 0
        self._unread.clear()
        self._echo = 0
        row, col = self._display.cursor
        denied = self._denials.since(self._denied_before)
        self._denied_before = self._denials.mark()
        return TerminalView(
            terminal_id=self.terminal_id,
            new_text=self._redactor.text(text),
            screen=[self._redactor.text(line) for line in self._display.lines()],
            cursor=Cursor(row=row, col=col),
            alive=self._is_alive,
            exit_code=self._exit_code,
            dropped_bytes=dropped,
            denials=denied,
        )

    def resize(self, rows: int, cols: int) -> None:
        """Its window has another size now."""
        self._rows, self._cols = rows, cols
        self._display.resize(rows, cols)

    # --- what its session's terminals do

    async def wait_attached(self) -> None:
        """Wait until what is typed can be sent, or the attempt has failed."""
        while self._attaching is not None:
            await self._news.wait()

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
        self._bump()

    def attach(self, link: Link) -> None:
        """A link is there: :meth:`pump` is about to run."""
        self._attaching = link

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
            news = self._news
            if await self._draw_some():
                await news.wait()
            else:
                await anyio.sleep(0 if self._watchers else DRAW_S / DRAW_SHARE)

    def end(self, exit_code: Any) -> None:
        """Its program has ended."""
        self._is_alive = False
        self._show(self._pieces.last())
        self._exit_code = exit_code if type(exit_code) is int and 0 <= exit_code < 256 else None
        self._bump()

    # --- inside

    def _begin(self, answer: dict[str, Any]) -> None:
        offset = answer.get("offset")
        if type(offset) is not int or not 0 <= offset < MAX_OFFSET:
            raise ProtocolError("the supervisor did not say where a terminal's output starts")
        if offset > self._offset:
            self._show(self._pieces.last())
            self._dropped += offset - self._offset
        self._offset = offset

    def _take(self, data: bytes) -> None:
        self._offset += len(data)
        self._came_at = time.monotonic()
        self.last_activity_at = time.time()
        self._show(self._pieces.feed(data))
        self._bump()

    def _show(self, data: bytes) -> None:
        self._unread += data
        if (over := len(self._unread) - UNREAD_BYTES) > 0:
            del self._unread[:over]
            self._dropped += over
        self._undrawn += data
        if (over := len(self._undrawn) - UNDRAWN_BYTES) > 0:
            del self._undrawn[:over]

    async def _draw_some(self) -> bool:
        """Draw for a moment; True when there is nothing left to draw."""
        display = self._display
        if display.is_drawn and self._undrawn:
            piece = bytes(self._undrawn[:4096])
            del self._undrawn[:4096]
            display.write(piece)
        display.draw(DRAW_S)
        answer = display.take_answer()
        drawn_to = self._offset - len(self._undrawn)
        if answer and drawn_to > self._answer_from and self._stream is not None:
            with suppress(SandboxError), anyio.move_on_after(0.1):
                await self._stream.send(answer.encode())
        return display.is_drawn and not self._undrawn

    async def _settle(self, until: float) -> None:
        """Wait until what came since the last typing is followed by quiet."""
        while self._is_alive and (left_s := until - time.monotonic()) > 0:
            if len(self._unread) > self._echo and self._came_at >= self._typed_at:
                quiet_s = self._came_at + QUIET_S - time.monotonic()
                if quiet_s <= 0:
                    return
                left_s = min(left_s, quiet_s)
            with anyio.move_on_after(left_s):
                await self._news.wait()

    def _attached(self, link: Link) -> None:
        if self._attaching is link:
            self._attaching = None
        self._bump()

    def _bump(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
