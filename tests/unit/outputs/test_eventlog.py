"""A log that many readers follow: each gets all of it, or is told what it missed."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.outputs.eventlog import Budget, EventLog

pytestmark = pytest.mark.anyio


def words(max_bytes: int = 100, *, start: int = 0, max_entries: int = 100) -> EventLog[str]:
    return EventLog(max_bytes, len, start=start, max_entries=max_entries)


def test_reading_takes_nothing_away() -> None:
    log = words()
    log.append("a")
    log.append("b")

    first, second = log.read(0), log.read(0)

    assert first == second
    assert first.entries == ("a", "b")
    assert (first.position, first.missed) == (2, 0)


def test_a_reader_that_came_too_late_is_told_how_much_it_missed() -> None:
    log = words(10)
    for word in ("aaaa", "bbbb", "cccc"):
        log.append(word)

    got = log.read(0)

    assert (got.entries, got.missed, got.position) == (("bbbb", "cccc"), 1, 3)
    assert log.size_bytes == 8


def test_an_entry_larger_than_the_log_is_kept_until_the_next() -> None:
    log = words(3)
    log.append("aaaaa")
    assert log.read(0).entries == ("aaaaa",)
    log.append("b")
    assert log.read(0).entries == ("b",)


def test_the_number_of_entries_is_bounded_too() -> None:
    log = words(100, max_entries=2)
    for word in "abc":
        log.append(word)
    assert log.read(0).entries == ("b", "c")


def test_positions_that_never_were_are_the_nearest_that_were() -> None:
    log = words(start=7)
    log.append("a")
    assert log.read(99).position == 8
    assert log.read(-5).missed == 7


def test_what_was_lost_on_its_way_is_missed_by_everybody() -> None:
    log = EventLog.bytes_log(100)
    log.append(b"abc")
    log.skip(5)
    log.append(b"de")
    got = log.read(1)
    assert (got.entries, got.missed, got.position) == ((b"de",), 7, 10)


@given(
    st.lists(st.binary(min_size=1, max_size=9), max_size=30), st.integers(1, 40), st.integers(0, 99)
)
def test_of_bytes_each_is_read_once_or_missed(
    pieces: list[bytes], max_bytes: int, start: int
) -> None:
    log = EventLog.bytes_log(max_bytes)
    whole = b""
    for piece in pieces:
        log.append(piece)
        whole += piece
    start = min(start, len(whole))
    got = log.read(start, max_entries=100)
    assert b"".join(got.entries) == whole[start + got.missed :]
    assert got.position == len(whole)
    assert log.size_bytes <= max(max_bytes, len(pieces[-1]) if pieces else 0)


def test_short_pieces_of_bytes_are_joined_and_cost_no_more_than_long_ones() -> None:
    log = EventLog.bytes_log(100, piece_bytes=10)
    for number in range(95):
        log.append(b"%d" % (number % 10))

    assert len(log.read(0).entries) == 10
    assert b"".join(log.read(41).entries) == b"".join(b"%d" % (n % 10) for n in range(41, 95))
    assert (log.size_bytes, log.end) == (95, 95)


def test_entries_may_be_numbered_elsewhere() -> None:
    log = words(start=4)
    log.append("e", 5)
    log.append("h", 8)

    assert log.read(4).entries == ("e", "h")
    assert (log.read(5).entries, log.read(5).position) == (("h",), 8)
    assert log.read(0).missed == 4


def test_logs_with_one_budget_keep_it_together_and_the_largest_pays() -> None:
    budget = Budget(10)
    small, large = (EventLog[str](100, len, budget=budget) for _ in range(2))
    small.append("aa")
    for _ in range(5):
        large.append("bbb")

    assert small.read(0).entries == ("aa",)
    assert large.read(0).missed == 3
    large.append("c" * 11)
    assert large.read(0).entries == ()
    assert small.read(0).entries == ("aa",)


async def test_two_readers_follow_at_their_own_pace() -> None:
    log = words()
    seen: dict[str, list[str]] = {"fast": [], "slow": []}

    async def follow(name: str, pause_s: float) -> None:
        async for got in log.follow():
            seen[name] += got.entries
            await anyio.sleep(pause_s)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, "fast", 0)
            tasks.start_soon(follow, "slow", 0.03)
            for word in "abcdef":
                log.append(word)
                await anyio.sleep(0.005)
            log.finish()

    assert seen == {"fast": list("abcdef"), "slow": list("abcdef")}


async def test_waiting_ends_with_news_with_time_and_with_the_log() -> None:
    log = words()
    assert not await log.wait(0, 0.01)
    log.append("a")
    assert await log.wait(0, 0)
    log.finish()
    assert not await log.wait(1)
