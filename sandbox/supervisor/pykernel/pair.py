"""The kernel's end of the pair: messages go out whole, whatever interrupts, and come in order."""

from __future__ import annotations

import array
import contextlib
import os
import select
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from sandbox.supervisor.messagelog import DELIMITER
from sandbox.supervisor.pairframes import FrameReader, frame
from sandbox.supervisor.zmtp import Incoming

READ_BYTES = 256 * 1024
MAX_REQUEST = 1 << 31
"""What comes is from the supervisor, and bounded there."""
HOLD_BYTES = 64 * 1024
MAX_FDS = 8
"""That may come with one message."""
PLACES = 3
"""For what comes with one request: a pair, stdout and stderr."""
_FDS = array.array("i")


class Pair:
    """The connection to the supervisor.

    Args:
        before_send: Called before anything is sent: what was printed earlier must be read earlier.
    """

    def __init__(self, fd: int, before_send: Callable[[], None]) -> None:
        self._socket = socket.socket(fileno=fd)
        self._before_send = before_send
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._held = bytearray()
        self._inbox: deque[tuple[str, list[bytes]]] = deque()
        self._reader = FrameReader(self._framed, MAX_REQUEST)
        self.fds: list[int] = []
        """Descriptors that came with the last requests, for whoever wants them."""
        self._places: list[int] = []
        """Descriptors that make room for those that come: code may have used up all others."""
        self._keep_places()
        self.is_held = False
        """Whether messages wait for :meth:`flush`, since no code of the user runs meanwhile."""
        self.ended = False
        """Whether the supervisor has closed its end."""

    def fileno(self) -> int:
        """Its descriptor; -1 once it was let go of."""
        return self._socket.fileno()

    def send(self, channel: str, parts: Sequence[bytes]) -> None:
        """Send a message; from a fork of the kernel it goes nowhere."""
        if os.getpid() != self._owner:
            return
        data = frame(channel, parts)
        with self._lock:
            if self.is_held and len(self._held) + len(data) <= HOLD_BYTES:
                self._held += data
                return
            self._before_send()
            self._send(bytes(self._held) + data if self._held else data)

    def flush(self) -> None:
        """Send what was held."""
        if self._held and os.getpid() == self._owner:
            with self._lock:
                self._before_send()
                self._send(bytes(self._held))

    @contextlib.contextmanager
    def holding(self) -> Generator[None]:
        """Hold what is sent meanwhile until something else is sent or printed."""
        before, self.is_held = self.is_held, True
        try:
            yield
        finally:
            self.is_held = before

    def _send(self, data: bytes) -> None:
        # An interrupt between two parts of a message would leave the supervisor with half of one.
        self._held.clear()
        is_main = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        )
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if is_main else None
        try:
            self._socket.sendall(data)
        except OSError:
            self.ended = True
        finally:
            if before is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def waiting(self) -> int:
        """How many messages have come and were not taken."""
        return len(self._inbox)

    def take(self, channel: str = "") -> list[bytes] | tuple[str, list[bytes]] | None:
        """The next message that has come, or of a channel; None when there is none."""
        if not channel:
            return self._inbox.popleft() if self._inbox else None
        for at, (name, parts) in enumerate(self._inbox):
            if name == channel:
                del self._inbox[at]
                return parts
        return None

    def receive(self, *, wait: bool = False) -> None:
        """Read what has come; with ``wait`` until something does or the supervisor is gone."""
        if wait:
            select.select([self._socket], [], [])
        for fd in self._places:
            os.close(fd)
        self._places.clear()
        try:
            # Not by socket.recv_fds, which takes flags and does not pass them on.
            data, about, _, _ = self._socket.recvmsg(
                READ_BYTES, socket.CMSG_LEN(MAX_FDS * _FDS.itemsize), socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            self._keep_places()
            return
        except OSError:
            data, about = b"", []
        for level, kind, handed in about:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(handed[: len(handed) - len(handed) % fds.itemsize])
                self.fds += fds
        self._keep_places()
        if data:
            self._reader.feed(data)
        else:
            self.ended = True

    def _keep_places(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._places) < PLACES:
                self._places.append(os.open(os.devnull, os.O_RDONLY))

    def begin_anew(self) -> None:
        """In a branch, which has an end of its own here: nothing has come, and nothing waits."""
        self._owner = os.getpid()
        self._held.clear()
        self._inbox.clear()
        self._reader = FrameReader(self._framed, MAX_REQUEST)

    def leave(self) -> None:
        """Let go of it, in a fork of the kernel."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _framed(self, channel: str, message: Incoming) -> None:
        self._inbox.append((channel, message.frames[2:]))


class PairSocket:
    """What ipykernel takes for a socket: one channel of the pair."""

    def __init__(self, pair: Pair, channel: str) -> None:
        self.pair = pair
        self.channel = channel

    def send_parts(self, parts: Sequence[bytes]) -> None:
        """Send a message of this channel."""
        self.pair.send(self.channel, parts)

    def send_multipart(self, frames: Sequence[Any], *_: Any, **_options: Any) -> None:
        """Send what ``Session.serialize`` has made, as to a socket of ZeroMQ."""
        parts = [bytes(memoryview(each)) for each in frames]
        self.send_parts(parts[parts.index(DELIMITER) + 2 :])

    def flush(self, *_: Any) -> None:
        """Send what was held."""
        self.pair.flush()
