"""Kernel messages as frames, in both forms."""

from __future__ import annotations

import json
import struct

import pytest

from sandbox.errors import InvalidRequest
from sandbox.kernels.jupytermessages import JupyterMessage
from sandbox.server.jupyter.kernelframes import MAX_VALUES, Frames, PlainFrames, SplitFrames

MESSAGE = JupyterMessage(
    "shell",
    {"msg_id": "m", "msg_type": "comm_msg", "session": "s"},
    {"msg_id": "p"},
    '{"text":"é"}'.encode(),
    b'{"a":1}',
    (b"\x00\xff", b""),
)


@pytest.mark.parametrize("frames", [PlainFrames(), SplitFrames()])
@pytest.mark.parametrize("buffers", [(), (b"one",), (b"\x00\xff", b"", b"x" * 1000)])
def test_a_message_is_read_as_it_was_written(frames: Frames, buffers: tuple[bytes, ...]) -> None:
    message = JupyterMessage(
        "shell",
        MESSAGE.header,
        MESSAGE.parent_header,
        MESSAGE.content_json,
        MESSAGE.metadata_json,
        buffers,
    )
    assert frames.read(frames.written(message)) == message


def test_a_plain_frame_without_buffers_is_text_that_clients_know() -> None:
    message = JupyterMessage("iopub", MESSAGE.header, MESSAGE.parent_header, b'{"x":[1]}')
    text = PlainFrames().written(message)
    assert isinstance(text, str)
    assert json.loads(text) == {
        "channel": "iopub",
        "header": MESSAGE.header,
        "msg_id": "m",
        "msg_type": "comm_msg",
        "parent_header": MESSAGE.parent_header,
        "metadata": {},
        "content": {"x": [1]},
        "buffers": [],
    }


def test_a_plain_frame_with_buffers_begins_with_offsets_in_network_order() -> None:
    data = PlainFrames().written(MESSAGE)
    assert isinstance(data, bytes)
    count, *offsets = struct.unpack_from("!4I", data)
    assert (count, offsets[0]) == (3, 16)
    assert data[offsets[1] : offsets[2]] == b"\x00\xff"
    assert json.loads(data[offsets[0] : offsets[1]])["header"]["msg_id"] == "m"


def test_a_split_frame_begins_with_little_endian_offsets_and_the_channel() -> None:
    data = SplitFrames().written(MESSAGE)
    assert isinstance(data, bytes)
    count = int.from_bytes(data[:8], "little")
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    assert (count, data[offsets[0] : offsets[1]], offsets[-1]) == (8, b"shell", len(data))


def test_a_message_may_hold_long_text_with_many_commas_but_not_many_values() -> None:
    head = '{"channel":"shell","header":{"msg_id":"m","msg_type":"execute_request"},"content":'
    text = head + json.dumps({"code": "1,[" * 100_000}) + "}"
    assert len(PlainFrames().read(text).content["code"]) == 300_000
    with pytest.raises(InvalidRequest):
        PlainFrames().read(head + '{"code":[' + "0," * MAX_VALUES + "0]}}")
