"""Sections: work past its budget is stopped, and what is within it is left alone."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from sandbox.bulkheads import bulkhead
from sandbox.bulkheads.bulkhead import Section
from sandbox.errors import TooMuchWork


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_work_past_its_budget_is_stopped_half_way() -> None:
    began = time.thread_time()
    with pytest.raises(TooMuchWork, match="a test"), Section("a test", budget_s=0.05):
        spin(30)
    assert time.thread_time() - began < 1


def test_a_broad_except_inside_does_not_hold_it_up() -> None:
    def stubborn() -> None:
        try:
            spin(30)
        except Exception:
            spin(30)

    began = time.thread_time()
    with pytest.raises(TooMuchWork), Section("a test", budget_s=0.05):
        stubborn()
    assert time.thread_time() - began < 1


@pytest.mark.parametrize("leaving", [Section.__exit__, bulkhead._watch.leave])
def test_time_that_is_over_while_a_section_is_left_does_not_keep_it_open(leaving: Any) -> None:
    def trace(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is leaving.__code__:
            bulkhead._watch._tick(signal.SIGALRM, frame)

    section = Section("a test", budget_s=0)
    sys.settrace(trace)
    try:
        with section:
            section.check()  # it has begun, and its time is over
    finally:
        sys.settrace(None)
    assert bulkhead.current() is None
    assert gc.isenabled()


def test_a_regular_expression_that_backtracks_is_stopped() -> None:
    began = time.thread_time()
    with pytest.raises(TooMuchWork), Section("a test", budget_s=0.05):
        re.match(r"(a+)+$", "a" * 40 + "b")
    assert time.thread_time() - began < 1


def test_the_timer_stops_by_itself_when_no_section_is_entered_any_more() -> None:
    with Section("a test"):
        spin(0.001)
    assert bulkhead.current() is None
    deadline = time.monotonic() + 10
    while signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(TooMuchWork), Section("a test", budget_s=0.05):  # and starts again
        spin(30)


def test_many_short_sections_are_not_taken_for_a_long_one() -> None:
    for _ in range(300):
        with Section("a test", budget_s=0.05):
            spin(0.001)


def test_time_that_somebody_else_uses_is_not_counted() -> None:
    with Section("a test", budget_s=0.05):
        time.sleep(0.3)


def test_the_outermost_budget_holds_for_what_is_nested() -> None:
    began = time.thread_time()

    def parts() -> None:
        for _ in range(1000):
            with Section("a part", budget_s=10):
                spin(0.01)

    with pytest.raises(TooMuchWork, match="all of it"), Section("all of it", budget_s=0.05):
        parts()
    assert time.thread_time() - began < 1
    assert bulkhead.current() is None


def test_an_error_of_the_work_itself_comes_through() -> None:
    with pytest.raises(KeyError), Section("a test"):
        raise KeyError("x")
    assert bulkhead.current() is None


def test_in_another_thread_it_is_measured_at_the_end() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            with Section("a test", budget_s=0.01):
                spin(0.05)
        except TooMuchWork as exc:
            caught.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1


@pytest.mark.anyio
async def test_the_event_loop_goes_on_after_one_was_stopped() -> None:
    with pytest.raises(TooMuchWork), Section("a test", budget_s=0.05):
        spin(30)
    await asyncio.sleep(0.01)
    assert await asyncio.to_thread(lambda: 1) == 1


def test_a_process_that_ends_soon_after_a_section_ends_well() -> None:
    code = "from sandbox.bulkheads.bulkhead import Section\nwith Section('a test'): pass\n"
    code += "import sys, time\n"
    code += "class Slow:\n    def __del__(self): time.sleep(0.3)\n"
    code += "sys.slow = Slow()\n"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_garbage_is_collected_inside_and_it_is_again_afterwards() -> None:
    with Section("a test"):
        assert not gc.isenabled()
        with Section("a part"):
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(TooMuchWork), Section("a test", budget_s=0.05):
        spin(30)
    assert gc.isenabled()
