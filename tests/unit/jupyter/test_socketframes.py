"""Kernel messages on the WebSocket of a Jupyter Server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.errors import ProtocolError
from sandbox.jupyter.socketframes import read
from sandbox.kernels.jupytermessages import JupyterMessage
from sandbox.kernels.messages import made_header
from sandbox.server.jupyter.kernelframes import PlainFrames


@pytest.mark.parametrize("buffers", [(), (b"\x00\xff",), (b"", b"two", b"x" * 100_000)])
def test_a_message_is_read_as_it_was_written(buffers: tuple[bytes, ...]) -> None:
    header = made_header("comm_msg", "s")
    message = JupyterMessage("shell", header, {"msg_id": "p"}, b'{"a":1}', b'{"m":2}', buffers)
    frame = PlainFrames().written(message)
    assert read(frame if isinstance(frame, bytes) else json.loads(frame)) == message


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"header": {"msg_id": 1, "msg_type": "x"}, "channel": "iopub"},
        {"header": {"msg_id": "1", "msg_type": "x"}, "channel": "elsewhere"},
        b"",
        b"\x00\x00\x00\x09{}",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x01\x00\x00\x00\x08nojson",
    ],
)
def test_what_makes_no_sense_is_an_error_of_the_server(frame: Any) -> None:
    with pytest.raises(ProtocolError):
        read(frame)
