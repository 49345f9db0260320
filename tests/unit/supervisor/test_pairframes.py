"""Frames on the pair: whole or skipped, however they are cut, and never more than is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import ProtocolError
from sandbox.supervisor.messagelog import DELIMITER
from sandbox.supervisor.pairframes import LENGTH, FrameReader, frame
from sandbox.supervisor.zmtp import Incoming

parts = st.lists(st.binary(max_size=40), max_size=6)
frames = st.lists(st.tuples(st.sampled_from(["iopub", "shell", "host"]), parts), max_size=5)


def read(data: bytes, cuts: list[int], max_bytes: int = 10_000) -> list[tuple[str, Incoming]]:
    found: list[tuple[str, Incoming]] = []
    reader = FrameReader(lambda channel, message: found.append((channel, message)), max_bytes)
    at = 0
    for cut in [*sorted(each % (len(data) + 1) for each in cuts), len(data)]:
        reader.feed(data[at:cut])
        at = max(at, cut)
    return found


@given(frames, st.lists(st.integers(0, 10_000), max_size=8))
def test_frames_are_read_as_they_were_sent_however_they_are_cut(
    sent: list[tuple[str, list[bytes]]], cuts: list[int]
) -> None:
    data = b"".join(frame(channel, each) for channel, each in sent)
    found = [(channel, message.frames) for channel, message in read(data, cuts)]
    assert found == [(channel, [DELIMITER, b"", *each]) for channel, each in sent]


@given(st.lists(st.integers(0, 300_000), max_size=8))
def test_a_frame_that_is_too_large_is_skipped_and_its_beginning_told(cuts: list[int]) -> None:
    large = frame("iopub", [b'{"msg_type": "display_data"}', b"{}", b"{}", bytes(200_000)])
    first, second = read(large + frame("shell", [b"x"]), cuts)
    assert first[0] == "iopub"
    assert not first[1].complete
    assert first[1].frames == [DELIMITER, b"", b'{"msg_type": "display_data"}', b"{}", b"{}"]
    assert first[1].size == len(large) - LENGTH.size
    assert second == ("shell", Incoming([DELIMITER, b"", b"x"], 15, True))


@given(st.binary(max_size=200))
def test_what_is_no_frame_is_refused_or_waited_for(data: bytes) -> None:
    try:
        read(LENGTH.pack(len(data)) + data, [])
    except ProtocolError:
        return


def test_a_message_with_too_many_buffers_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="at most 255"):
        frame("iopub", [b""] * 255)
