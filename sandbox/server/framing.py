"""The frames of a WebSocket as they come in: how many at once, how fast, and how large.

A frame takes far longer to read than to send: the smallest has six bytes, and a read of the socket
holds tens of thousands. So what came is worked off in pieces, between which others have their turn;
while the application has not taken a message, nothing more is read; and a client that sends more
frames than a person or a program with something to say is slowed down to the pace.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, Ping, Pong, TextMessage

MAX_MESSAGE_BYTES = 1024 * 1024
MAX_ROOM_MESSAGE_BYTES = 4 * 1024 * 1024
"""In the room of a notebook, where a client says all outputs of a cell at once."""
PING_S = 20.0
"""Between two pings of ours, and for each answer."""
PIECE_BYTES = 4 * 1024
"""Of what was read, before others have their turn."""
LEAST_FRAME_BYTES = 6
FRAMES_PER_S = 256
"""Beyond the burst. A long frame counts once for each piece, so this bounds the bytes too."""
FRAMES_AT_ONCE = 1024
MAX_UNSENT_BYTES = 256 * 1024
"""Of answers to pings, when the client does not read them."""
CLOSING_S = 10.0
"""For the client to read what is left."""

# Uvicorn's own lines would show addresses with their queries.
_log = logging.getLogger("uvicorn.error.websocket")
_log.setLevel(logging.WARNING)


class BoundedWebSocket(WSProtocol):
    """One WebSocket, in the place of the HTTP connection that it was."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.logger = _log
        self.lost: Callable[[], None] = lambda: None
        """Called when it is over."""
        self._unread = bytearray()
        self._turn: asyncio.Handle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._frames = float(FRAMES_AT_ONCE)
        self._counted_at = self.loop.time()

    @property
    def has_a_grant(self) -> bool:
        """Whether its handshake came with a valid token."""
        return "sandbox.grant" in getattr(self, "scope", {})

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        for handle in (self._turn, self._end):
            if handle is not None:
                handle.cancel()
        self._unread.clear()
        self.lost()
        super().connection_lost(exc)

    def handle_connect(self, event: Any) -> None:
        """Read no frames before somebody has taken the handshake."""
        super().handle_connect(event)
        if "/api/collaboration/room/" in self.scope["path"]:
            self.buffer.max_length = MAX_ROOM_MESSAGE_BYTES
        self.read_paused = True
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Take what was read."""
        if self.conn.state is ConnectionState.CONNECTING:
            super().data_received(data)
        else:
            self._unread += data
            self._work_off()

    async def receive(self) -> Any:
        """The next message for the application."""
        message = await super().receive()
        self._go_on()
        return message

    async def send(self, message: Any) -> None:
        """Send one of the application."""
        await super().send(message)
        self._go_on()

    def handle_message(self, event: TextMessage | BytesMessage) -> None:
        """Take a message, or a part of one."""
        self._frames -= 1
        super().handle_message(event)

    def handle_ping(self, event: Ping) -> None:
        """Answer it, unless too many answers are waiting to be read."""
        self._frames -= 1
        if self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.transport.abort()
        else:
            super().handle_ping(event)

    def handle_pong(self, event: Pong) -> None:
        """Take a sign of life."""
        self._frames -= 1
        super().handle_pong(event)

    def keepalive_timeout(self) -> None:
        """End it, for nobody reads what would be sent to it."""
        self.transport.abort()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application has ended; what is left is sent, if it is read soon."""
        super().on_task_complete(task)
        if self._end is None and not self.disconnected:
            self._end = self.loop.call_later(CLOSING_S, self.transport.abort)

    def _work_off(self) -> None:
        """Read the next piece of what has come, when it may be."""
        self._turn = None
        if self._unread and not self.read_paused and not self.transport.is_closing():
            piece = bytes(self._unread[:PIECE_BYTES])
            del self._unread[:PIECE_BYTES]
            super().data_received(piece)
            if self.close_sent:  # frames are dropped uncounted until the client has closed too
                self._frames -= len(piece) / LEAST_FRAME_BYTES
        self._go_on()

    def _go_on(self) -> None:
        """Have the next turn when there is something to read; read from the socket otherwise."""
        if self.read_paused or self._turn is not None or self.transport.is_closing():
            return
        now = self.loop.time()
        self._frames += (now - self._counted_at) * FRAMES_PER_S
        self._frames = min(self._frames, FRAMES_AT_ONCE)
        self._counted_at = now
        if self._unread or self._frames < 0:
            self.transport.pause_reading()
            self._turn = self.loop.call_later(
                max(0.0, -self._frames / FRAMES_PER_S), self._work_off
            )
        else:
            self.transport.resume_reading()
