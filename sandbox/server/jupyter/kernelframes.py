"""Kernel messages as frames of a WebSocket, in the two forms that clients of Jupyter Servers know.

https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html

Whatever a client sends is checked before it is believed: offsets first, then how many values its
JSON has, and each part.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

from sandbox.errors import InvalidRequest, ProtocolError
from sandbox.kernels.jupytermessages import MAX_BUFFERS, JupyterMessage, client_message
from sandbox.kernels.messages import has_many_values
from sandbox.link import wire

MAX_VALUES = 50_000
"""The values in what a client says."""
_PARTS = 4
"""A header, its parent's, metadata and content."""


class Frames(Protocol):
    """One form."""

    def written(self, message: JupyterMessage) -> bytes | str:
        """A message as the bytes or the text of a frame."""
        ...

    def read(self, frame: bytes | str) -> JupyterMessage:
        """A client's message.

        Raises:
            InvalidRequest: The frame is none.
        """
        ...


class PlainFrames:
    """One JSON object, as text; in bytes behind offsets where buffers follow it."""

    def written(self, message: JupyterMessage) -> bytes | str:
        """A message as a frame."""
        head = {"channel": message.channel, "header": message.header, "msg_id": message.msg_id}
        head |= {"msg_type": message.msg_type, "parent_header": message.parent_header}
        text = wire.encode_json(head)[:-1]
        text += b',"metadata":' + message.metadata_json + b',"content":' + message.content_json
        if not message.buffers:
            return (text + b',"buffers":[]}').decode()
        parts = (text + b"}", *message.buffers)
        offsets = _offsets(parts, 4 * (len(parts) + 1))[:-1]
        head_bytes = struct.pack(f"!{len(parts) + 1}I", len(parts), *offsets)
        return b"".join((head_bytes, *parts))

    def read(self, frame: bytes | str) -> JupyterMessage:
        """A client's message."""
        buffers: Sequence[bytes] = ()
        if isinstance(frame, bytes):
            text, *buffers = _split(frame)
        else:
            text = frame.encode("utf-8", "replace")
        found = _object(text)
        return client_message(
            found.get("channel", "shell"),
            found.get("header"),
            found.get("parent_header"),
            found.get("metadata"),
            found.get("content"),
            buffers,
        )


class SplitFrames:
    """The ``v1`` form: the channel and each part of the message behind offsets, in bytes."""

    def written(self, message: JupyterMessage) -> bytes | str:
        """A message as a frame."""
        parts = (
            message.channel.encode(),
            wire.encode_json(message.header),
            wire.encode_json(message.parent_header),
            message.metadata_json,
            message.content_json,
            *message.buffers,
        )
        offsets = _offsets(parts, 8 * (len(parts) + 2))
        head = struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets)
        return b"".join((head, *parts))

    def read(self, frame: bytes | str) -> JupyterMessage:
        """A client's message."""
        if isinstance(frame, str):
            raise InvalidRequest("Under this sub-protocol a message is bytes.")
        count = int.from_bytes(frame[:8], "little")
        if not _PARTS + 2 <= count <= _PARTS + 2 + MAX_BUFFERS or len(frame) < 8 * (count + 1):
            raise InvalidRequest("A message has a channel, four parts, and buffers.")
        parts = _cut(frame, struct.unpack_from(f"<{count}Q", frame, 8), 8 * (count + 1))
        channel, header, parent, metadata, content, *buffers = parts
        return client_message(
            channel.decode("ascii", "replace"),
            _object(header),
            _object(parent),
            _object(metadata),
            _object(content),
            buffers,
        )


def _split(frame: bytes) -> list[bytes]:
    """The parts of a frame of bytes in the plain form."""
    count = int.from_bytes(frame[:4], "big")
    if not 1 <= count <= 1 + MAX_BUFFERS or len(frame) < 4 * (count + 1):
        raise InvalidRequest("A message of bytes has a JSON object, and buffers.")
    offsets: tuple[int, ...] = struct.unpack_from(f"!{count}I", frame, 4)
    return _cut(frame, (*offsets, len(frame)), 4 * (count + 1))


def _cut(frame: bytes, offsets: Sequence[int], start: int) -> list[bytes]:
    """What stands between offsets, which must follow one another."""
    if offsets[0] != start or offsets[-1] > len(frame) or list(offsets) != sorted(offsets):
        raise InvalidRequest("The offsets of a message make no sense.")
    return [frame[at:end] for at, end in pairwise(offsets)]


def _offsets(parts: Sequence[bytes], start: int) -> list[int]:
    """Where each part begins, and the last one ends."""
    offsets = [start]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return offsets


def _object(text: bytes) -> dict[str, Any]:
    if has_many_values(text, MAX_VALUES):
        raise InvalidRequest(f"A message has at most {MAX_VALUES:,} values.")
    try:
        return wire.decode_json(text)
    except ProtocolError as exc:
        raise InvalidRequest("A message is JSON objects, not too deeply nested.") from exc
