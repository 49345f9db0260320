"""What the load generator makes of clients that call together, and of what it measured."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import crowd
from benchmarks.crowd import seats, together
from benchmarks.growth import Point, Timed, table
from benchmarks.load import rate

POINT = Point(
    sessions=10,
    alone_cell_ms=4.04,
    cell_ms=4.44,
    other_cell_ms=5,
    alone_processor_ms=3,
    cell_processor_ms=3.2,
    alone_open_ms=301,
    open_ms=310.4,
    open_processor_ms=30,
    idle_percent=1.5,
    controller_mb=132,
)


def test_all_are_there_before_the_first_begins() -> None:
    inside = threading.Barrier(5)
    assert together([lambda n=n: (inside.wait(10), n)[1] for n in range(5)]) == [0, 1, 2, 3, 4]


def test_who_fails_is_told_when_the_others_have_ended() -> None:
    ended: list[int] = []

    def fails() -> None:
        raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer"):
        together([fails, lambda: ended.append(1), lambda: ended.append(2)])
    assert sorted(ended) == [1, 2]


def test_a_session_that_cannot_be_opened_leaves_none_of_the_others_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[int] = []

    class House:
        def caller(self, number: int) -> int:
            return number

    class Seat:
        def __init__(self, number: int) -> None:
            self.number = number

        def close(self) -> None:
            closed.append(self.number)

    def seat(number: int, _policy: str) -> Any:
        if number == 3:
            raise ValueError("full")
        return Seat(number)

    monkeypatch.setattr(crowd, "seat", seat)
    monkeypatch.setattr(crowd, "Seat", Seat)
    with pytest.raises(ValueError, match="full"):
        seats(House(), 5)  # type: ignore[arg-type]
    assert sorted(closed) == [0, 1, 2, 4]


def test_a_rate_is_of_all_workers_together() -> None:
    done: list[int] = []
    found = rate(done.append, 3, 0.05)
    assert sorted(done) == list(range(len(done)))
    assert found == pytest.approx(len(done) / 0.05, rel=0.9)


def test_the_table_has_a_row_for_each_number_of_sessions() -> None:
    lines = table([POINT, replace(POINT, sessions=200)]).splitlines()
    assert {line.count("|") for line in lines} == {12}
    assert lines[2].startswith("| 10 | 4.4 ms | 5.0 ms | 4.0 ms | 3.2 ms | 3.0 ms | 310 ms |")
    assert lines[2].endswith("| 30 ms | 0.015 | 132 MB |")
    assert lines[3].startswith("| 200 |")


def test_what_calls_took_is_told_by_the_middle_one() -> None:
    timed = Timed(pid=0, took_s=[0.001, 0.005, 0.002], processor_s=0.009)
    assert timed.middle_ms == pytest.approx(2)
    assert timed.processor_ms == pytest.approx(3)
