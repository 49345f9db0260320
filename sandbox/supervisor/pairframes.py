"""The frames on the pair of sockets between the supervisor and a Python kernel.

A frame is its length (4 bytes, big-endian) and its parts, packed as in a KERNEL message of the
link: the channel, then a Jupyter message without its signature: header, parent header, metadata,
content and buffers. The channel ``host`` is between the two processes only, with one part of JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from sandbox.link import wire
from sandbox.supervisor.messagelog import DELIMITER
from sandbox.supervisor.zmtp import MAX_MESSAGE, Incoming

LENGTH = struct.Struct("!I")
HOST = "host"
_KEPT = 128 * 1024
"""Of a frame that is too large: enough to say what it was."""


def frame(channel: str, parts: Sequence[bytes]) -> bytes:
    """A frame as it is sent.

    Raises:
        ValueError: The message has too many buffers, or is longer than a frame can be.
    """
    body = wire.pack_parts([channel.encode(), *parts])
    if len(body) >= 1 << 32:
        raise ValueError("A message of 4 GiB or more cannot be sent.")
    return LENGTH.pack(len(body)) + body


class FrameReader:
    """Makes frames of bytes as they come; skips a frame that is too large as it passes by.

    Args:
        on_frame: Called with the channel of each frame and what was in it; of one that was too
            large only the first parts.
    """

    def __init__(
        self, on_frame: Callable[[str, Incoming], None], max_bytes: int = MAX_MESSAGE
    ) -> None:
        self._on_frame = on_frame
        self._max = max_bytes
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> None:
        """Take bytes.

        Raises:
            ProtocolError: They are no frames: the rest of the stream means nothing.
        """
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while True:
                if self._skip:
                    step = min(self._skip, len(buffer) - at)
                    self._skip -= step
                    at += step
                    if self._skip:
                        return
                if len(buffer) - at < LENGTH.size:
                    return
                size = LENGTH.unpack_from(buffer, at)[0]
                start, whole = at + LENGTH.size, size <= self._max
                end = start + (size if whole else min(size, _KEPT))
                if len(buffer) < end:
                    return
                body = bytes(memoryview(buffer)[start:end])
                at = end
                self._skip = size - (end - start)
                self._take(body, size, whole)
        finally:
            del buffer[:at]

    def _take(self, body: bytes, size: int, whole: bool) -> None:
        parts = wire.unpack_parts(body) if whole else _beginning(body)
        channel = parts[0].decode("ascii", "replace") if parts else ""
        self._on_frame(channel, Incoming([DELIMITER, b"", *parts[1:]], size, whole))


def _beginning(body: bytes) -> list[bytes]:
    """The parts that are whole in the beginning of a frame."""
    parts: list[bytes] = []
    at = 1
    while at + LENGTH.size <= len(body):
        start = at + LENGTH.size
        at = start + LENGTH.unpack_from(body, at)[0]
        if at <= len(body):
            parts.append(body[start:at])
    return parts
