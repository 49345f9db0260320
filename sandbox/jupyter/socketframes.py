"""Kernel messages as a Jupyter Server says them over a WebSocket without a sub-protocol.

https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sandbox.errors import ProtocolError
from sandbox.kernels.jupytermessages import JupyterMessage
from sandbox.link import wire

CHANNELS = ("shell", "control", "stdin", "iopub")


def read(frame: Mapping[str, Any] | bytes) -> JupyterMessage:
    """A message of the server.

    Raises:
        ProtocolError: It is none.
    """
    buffers: list[bytes] = []
    if isinstance(frame, bytes):
        count = int.from_bytes(frame[:4], "big")
        if not 0 < count < len(frame) // 4:
            raise ProtocolError("The server sent a message that makes no sense.")
        at = [int.from_bytes(frame[4 * n : 4 * n + 4], "big") for n in range(1, count + 1)]
        text, *buffers = (
            frame[start:end] for start, end in zip(at, [*at[1:], len(frame)], strict=True)
        )
        frame = wire.decode_json(text)
    headers = [frame.get(name) for name in ("header", "parent_header")]
    contents = [frame.get(name) for name in ("content", "metadata")]
    header, parent = (
        cast("dict[str, Any]", each) if isinstance(each, dict) else {} for each in headers
    )
    if not all(isinstance(header.get(name), str) for name in ("msg_id", "msg_type")):
        raise ProtocolError("The server sent a message without an id or a type.")
    content, metadata = (
        wire.encode_json(cast("dict[str, Any]", each)) if isinstance(each, dict) else b"{}"
        for each in contents
    )
    channel = str(frame.get("channel"))
    if channel not in CHANNELS:
        raise ProtocolError(f"The server sent a message of the channel {channel:.40}.")
    return JupyterMessage(channel, header, parent, content, metadata, tuple(buffers))
