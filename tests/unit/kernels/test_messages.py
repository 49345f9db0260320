"""Messages of kernels, which anybody inside can forge."""

from __future__ import annotations

import json
import time
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import ProtocolError
from sandbox.kernels.messages import KernelMessage, Messages, new_id, open_envelope
from sandbox.kernels.messages import read as read_envelope
from sandbox.link import wire

ENVELOPE = {"seq": 1, "epoch": 1, "channel": "iopub"}


def read(data: bytes) -> KernelMessage:
    return read_envelope(open_envelope(data))


def packed(
    envelope: Any = ENVELOPE,
    header: Any = {"msg_type": "stream"},  # noqa: B006  # never changed
    parent: Any = {"msg_id": "p"},  # noqa: B006  # never changed
    content: Any = {"text": "x"},  # noqa: B006  # never changed
) -> bytes:
    parts = [b"", *(json.dumps(part).encode() for part in (header, parent, {}, content))]
    return wire.pack_parts([json.dumps(envelope).encode(), *parts])


def test_a_request_is_a_jupyter_message_that_asks_for_no_input() -> None:
    msg_id = new_id()
    envelope, signature, header, parent, metadata, content = wire.unpack_parts(
        Messages().execute("1 + 1", msg_id)
    )
    asked = json.loads(content)

    assert json.loads(envelope) == {"channel": "shell"}
    assert signature == b""
    assert json.loads(header)["msg_id"] == msg_id
    assert json.loads(header)["msg_type"] == "execute_request"
    assert (json.loads(parent), json.loads(metadata)) == ({}, {})
    assert asked["code"] == "1 + 1"
    assert (asked["allow_stdin"], asked["silent"], asked["store_history"]) == (False, False, True)


def test_a_message_is_read_with_its_number_and_parent() -> None:
    message = read(packed())

    assert (message.seq, message.epoch, message.channel) == (1, 1, "iopub")
    assert (message.msg_type, message.parent_id, message.content) == ("stream", "p", {"text": "x"})


@pytest.mark.parametrize(
    "envelope",
    [
        {},
        {"seq": 0, "epoch": 1, "channel": "iopub"},
        {"seq": "1", "epoch": 1, "channel": "iopub"},
        {"seq": True, "epoch": 1, "channel": "iopub"},
        {"seq": 2**70, "epoch": 1, "channel": "iopub"},
        {"seq": 1, "epoch": -1, "channel": "iopub"},
        {"seq": 1, "epoch": 1, "channel": "nothing"},
        [1, 1, "iopub"],
    ],
)
def test_an_envelope_that_no_supervisor_sends_breaks_the_protocol(envelope: Any) -> None:
    with pytest.raises(ProtocolError):
        read(packed(envelope))


@pytest.mark.parametrize(
    "broken",
    [
        {"header": []},
        {"header": {"msg_type": 5}},
        {"header": {"msg_type": "x" * 10_000}},
        {"content": [1]},
        {"content": None},
        {"content": {"deep": json.loads("[" * 200 + "]" * 200)}},
        {"parent": "text"},
    ],
)
def test_what_user_code_forges_means_nothing_and_costs_only_itself(broken: dict[str, Any]) -> None:
    assert read(packed(**broken)).msg_type == ""


def test_the_dates_and_versions_of_a_header_are_not_believed() -> None:
    header = {"msg_type": "stream", "date": "9999-99-99T99:99:99", "version": "0.1"}

    assert read(packed(header=header)).msg_type == "stream"


def test_many_small_values_do_not_become_many_objects() -> None:
    """16 MiB of ``[[],[],…]`` would be half a gigabyte of lists."""
    content = b'{"data": [' + b"[]," * 5_000_000 + b"[]]}"
    parts = [b'{"seq":1,"epoch":1,"channel":"iopub"}', b"", b'{"msg_type":"x"}', b"{}", b"{}"]
    data = wire.pack_parts([*parts, content])
    tracemalloc.start()
    message = read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert message.msg_type == ""
    assert peak < 4 * len(data)


def test_a_long_text_full_of_commas_is_no_list() -> None:
    content = {"text": ',[{"' * 200_000}

    assert read(packed(content=content)).content == content


@pytest.mark.parametrize("unit", [b'"', b'\\"', b"\\"])
def test_what_is_no_json_takes_no_longer_than_what_is(unit: bytes) -> None:
    """A text that never ends was searched again from each of its quotation marks, for minutes."""
    content = b"," * 250_001 + unit * 40_000
    parts = [b'{"seq":1,"epoch":1,"channel":"iopub"}', b"", b'{"msg_type":"x"}', b"{}", b"{}"]
    data = wire.pack_parts([*parts, content])
    began = time.thread_time()

    assert read(data).msg_type == ""
    assert time.thread_time() - began < 1


@pytest.mark.parametrize("long", ["header", "parent"])
def test_a_long_header_is_not_parsed(long: str) -> None:
    assert read(packed(**{long: {"msg_type": "x", "more": "x" * 100_000}})).msg_type == ""


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_broken_protocol(data: bytes) -> None:
    with suppress(ProtocolError):
        read(data)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8))
def test_no_parts_raise_anything_but_a_broken_protocol(parts: list[bytes]) -> None:
    for envelope in (ENVELOPE, {**ENVELOPE, "channel": "event"}):
        with suppress(ProtocolError):
            read(wire.pack_parts([json.dumps(envelope).encode(), *parts]))
