from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import ProtocolError
from sandbox.link import wire

text = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@given(st.integers(0, 7), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300))
def test_a_frame_is_its_header_and_its_payload(
    kind: int, tag: int, stream: int, payload: bytes
) -> None:
    frame = wire.encode(kind, stream, payload, tag)
    assert wire.HEADER.unpack(frame[:8]) == (kind, tag, stream, len(payload))
    assert frame[8:] == payload


def test_a_payload_past_what_a_header_can_say_is_not_encoded() -> None:
    assert len(wire.encode(wire.DATA, 1, bytes(wire.MAX_PAYLOAD))) == 8 + wire.MAX_PAYLOAD
    with pytest.raises(ValueError, match="65536"):
        wire.encode(wire.DATA, 1, bytes(wire.MAX_PAYLOAD + 1))


@given(st.dictionaries(text, values, max_size=5))
def test_an_object_survives_the_way_as_json(value: dict[str, Any]) -> None:
    assert wire.decode_json(wire.encode_json(value)) == value


@given(st.binary(max_size=200))
def test_bytes_that_are_no_json_object_break_the_protocol(data: bytes) -> None:
    try:
        expected = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        expected = None
    if isinstance(expected, dict):
        assert wire.decode_json(data) == expected
    else:
        with pytest.raises(ProtocolError):
            wire.decode_json(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"a":' * 64 + b"[]" + b"}" * 64,
        b'{"a":' + b"9" * 50_000 + b"}",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        '{"a":1}'.encode("utf-16"),
        b"",
        b"null",
    ],
)
def test_json_that_would_hurt_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_json(data)


def test_json_as_deep_as_allowed_is_taken() -> None:
    deep = b'{"a":' * 64 + b"1" + b"}" * 64
    assert wire.decode_json(deep) == json.loads(deep)


@pytest.mark.parametrize("escape", [r"\ud800", r"\uDFFF", r"\udc00\ud800"])
def test_lone_surrogates_never_get_past_the_decoder(escape: str) -> None:
    found = wire.decode_json(f'{{"k{escape}":["a{escape}b"]}}'.encode())
    json.dumps(found, ensure_ascii=False).encode()  # would raise
    assert "a?" in str(found)


@pytest.mark.parametrize("data", [b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}'])
def test_what_is_not_utf_8_is_replaced(data: bytes) -> None:
    assert "\ufffd" in wire.decode_json(data)["a"]


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", float("nan"), float("inf")])
def test_what_json_in_utf_8_cannot_express_is_not_sent(value: object) -> None:
    with pytest.raises(ValueError, match=r"surrogates|JSON compliant"):
        wire.encode_json({"a": [value]})


def test_characters_outside_the_basic_plane_stay_what_they_are() -> None:
    assert wire.decode_json(rb'{"a":"\ud83d\ude00"}') == {"a": "\N{GRINNING FACE}"}


@given(st.lists(st.binary(max_size=50), max_size=255))
def test_the_parts_of_a_kernel_message_come_apart_as_they_were_joined(parts: list[bytes]) -> None:
    assert wire.unpack_parts(wire.pack_parts(parts)) == parts


def test_more_parts_than_a_byte_can_count_are_not_joined() -> None:
    with pytest.raises(ValueError, match="256"):
        wire.pack_parts([b""] * 256)


@given(st.binary(max_size=100))
def test_parts_that_do_not_fill_their_message_break_the_protocol(data: bytes) -> None:
    try:
        parts = wire.unpack_parts(data)
    except ProtocolError:
        return
    assert wire.pack_parts(parts) == data


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.data())
def test_a_kernel_message_cut_or_lengthened_is_refused(
    parts: list[bytes], choice: st.DataObject
) -> None:
    data = wire.pack_parts(parts)
    with pytest.raises(ProtocolError):
        wire.unpack_parts(data + b"\0")
    with pytest.raises(ProtocolError):
        wire.unpack_parts(data[: choice.draw(st.integers(0, len(data) - 1))])
