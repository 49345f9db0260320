from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.policy.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0B", 0),
        ("1KiB", 1024),
        ("1 KiB", 1024),
        ("1.5GiB", 1610612736),
        ("512MiB", 536870912),
        ("2TiB", 2 * 1024**4),
        ("0.5KiB", 512),
    ],
)
def test_a_size_is_read_in_binary_units(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        *("", "GiB", "1", "1GB", "1gib", "1G", "-1GiB", "+1GiB", " 1GiB", "1GiB ", "1  GiB"),
        *("1e3KiB", "1.GiB", ".5GiB", "0.3B", "1.0001KiB", "1_000KiB", "١GiB", "1GiB\n"),
        "9" * 16 + "B",
    ],
)
def test_what_is_no_plain_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [("0s", 0), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("1d1h1m1s", 90061)],
)
def test_a_duration_is_read_in_its_units(text: str, duration_s: int) -> None:
    assert parse_duration(text) == duration_s


@pytest.mark.parametrize(
    "text",
    ["", "5", "5 m", "m", "1m1h", "1h1h", "1.5h", "-5m", "5min", "5M", "1:30", "5m\n", "٥m"],
)
def test_what_is_no_plain_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_duration(text)


@given(st.integers(0, 10**15 - 1))
def test_a_written_size_reads_back_the_same(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.integers(0, 10**9))
def test_a_written_duration_reads_back_the_same(duration_s: int) -> None:
    assert parse_duration(format_duration(duration_s)) == duration_s


def test_sizes_and_durations_are_written_in_the_largest_units_that_fit() -> None:
    assert format_size(1024**3) == "1GiB"
    assert format_size(1536 * 1024**2) == "1536MiB"
    assert format_size(1000) == "1000B"
    assert format_duration(5400) == "1h30m"
    assert format_duration(0) == "0s"
