"""Head and tail of bytes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.outputs.headtail import HeadTail


@given(st.lists(st.binary(max_size=6000), max_size=20), st.integers(2, 5000))
def test_the_first_and_last_bytes_are_kept_and_the_rest_is_counted(
    pieces: list[bytes], limit: int
) -> None:
    kept = HeadTail(limit)
    for piece in pieces:
        kept.add(bytes(byte & 0x5F | 0x40 for byte in piece))
    sent = b"".join(bytes(byte & 0x5F | 0x40 for byte in piece) for piece in pieces).decode()
    text = kept.text()

    if len(sent) <= limit:
        assert text == sent
        assert kept.cut_bytes == 0
    else:
        head, _, tail = re.split(r"(\n\[… [\d,]+ bytes cut …\]\n)", text)
        assert sent.startswith(head)
        assert sent.endswith(tail)
        assert len(head) == limit // 2
        assert len(tail) == limit - limit // 2
        assert kept.cut_bytes == len(sent) - limit


def test_asking_twice_gives_the_same_text() -> None:
    kept = HeadTail(100)
    for _ in range(50):
        kept.add(b"0123456789")

    assert kept.text() == kept.text()


def test_broken_characters_do_no_harm() -> None:
    kept = HeadTail(10)
    kept.add("€€€€€€€€".encode())

    assert "bytes cut" in kept.text()


@pytest.mark.parametrize("size", [5, 50, 5000, 50_000])
def test_a_smaller_limit_shows_what_it_would_have_kept(size: int) -> None:
    data = b"".join(b"%d\n" % number for number in range(size))[:size]
    large, small = HeadTail(20_000), HeadTail(1000)
    for start in range(0, size, 700):
        large.add(data[start : start + 700])
        small.add(data[start : start + 700])
    within = large.within(1000)
    assert within.text() == small.text()
    assert within.cut_bytes == small.cut_bytes
    assert large.within(20_000) is large
