"""The watchdog names who holds the event loop up, and where."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest

from sandbox.bulkheads import watchdog
from sandbox.bulkheads.bulkhead import Section
from sandbox.bulkheads.watchdog import Watchdog
from sandbox.outputs import mime

pytestmark = [pytest.mark.anyio, pytest.mark.timed]  # its thread has to run while the loop is held


def hold(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def lines(caplog: pytest.LogCaptureFixture, count: int) -> list[str]:
    async with asyncio.timeout(10):
        while len(caplog.messages) < count:
            await asyncio.sleep(0.02)
    return caplog.messages


async def test_a_held_loop_is_logged_with_the_session_and_the_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "sandbox.bulkheads.watchdog"), Watchdog(held_s=0.1):
        with Section("a test", "s-ada", budget_s=10):
            hold(0.5)
        (line,) = await lines(caplog, 1)
    assert "s-ada (a test)" in line
    assert "test_watchdog.py" in line
    assert "hold" in line


async def test_the_place_is_in_whichever_room_of_the_package_the_work_is_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Slow(list[str]):
        def __iter__(self) -> Iterator[str]:
            hold(0.5)
            return super().__iter__()

    with caplog.at_level(logging.WARNING, "sandbox.bulkheads.watchdog"), Watchdog(held_s=0.1):
        mime.read("text/plain", Slow(["a line"]))
        (line,) = await lines(caplog, 1)
    assert "sandbox/outputs/mime.py" in line


async def test_a_loop_that_turns_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "sandbox.bulkheads.watchdog"), Watchdog(held_s=2.0):
        for _ in range(10):
            hold(0.02)
            await asyncio.sleep(0.02)
    assert caplog.messages == []


async def test_a_loop_that_is_held_again_and_again_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_INTERVAL_S", 0.01)
    with caplog.at_level(logging.WARNING, "sandbox.bulkheads.watchdog"), Watchdog(held_s=0.03):
        for _ in range(5):
            hold(0.15)
            await asyncio.sleep(0.05)
    assert len(caplog.messages) == 1
