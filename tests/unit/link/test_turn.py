"""The event loop is shared by time."""

from __future__ import annotations

import asyncio
import time

import pytest

from sandbox.link import wire
from sandbox.link.link import Link
from sandbox.link.memory import pipe
from sandbox.link.stream import Stream
from sandbox.link.turn import TURN_S, Turn

pytestmark = pytest.mark.anyio


def work(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def test_a_session_that_has_worked_long_rests_as_long() -> None:
    turn = Turn()
    work(0.1)
    turn.charge(0.1)
    began = time.perf_counter()
    await turn.rest()
    assert time.perf_counter() - began >= 0.08


async def test_all_pumps_of_a_session_rest_together() -> None:
    turn, rested = Turn(), 0

    async def pump() -> None:
        nonlocal rested
        await turn.rest()
        rested += 1

    work(0.1)
    turn.charge(0.1)
    pumps = [asyncio.create_task(pump()) for _ in range(3)]
    await asyncio.sleep(0.02)
    assert rested == 0
    await asyncio.gather(*pumps)


async def test_short_work_adds_up_while_another_session_works() -> None:
    turn, other = Turn(), Turn()
    other.charge(0.001)
    for _ in range(20):
        turn.charge(TURN_S / 2)
    began = time.perf_counter()
    await turn.rest()
    assert time.perf_counter() - began > 2 * TURN_S


@pytest.mark.timed
async def test_who_is_alone_does_not_wait_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turn, "_latest", (None, -10.0))
    monkeypatch.setattr(Turn, "_before", -10.0)
    turn = Turn()
    for _ in range(1000):
        turn.charge(TURN_S / 2)
    began = time.perf_counter()
    await turn.rest()
    assert time.perf_counter() - began < 4


async def test_a_full_inbox_is_not_taken_without_letting_others_have_their_turn() -> None:
    """Whatever a consumer of a stream does with its messages is counted by the stream."""
    ours, theirs = pipe()
    done = asyncio.Event()

    async def flood(stream: Stream) -> None:
        for _ in range(100):
            await stream.send(b"x" * 100)

    near = Link(ours, initiator=True, hello={})
    far = Link(theirs, initiator=False, hello={}, on_open=flood)
    longest = 0.0

    async def neighbour() -> None:
        nonlocal longest
        while not done.is_set():
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(near.run())
        tasks.create_task(far.run())
        await near.greeting()
        stream = near.open("flood")
        await asyncio.sleep(0.2)  # the inbox fills
        tasks.create_task(neighbour())
        taken = 0
        async for message in stream:
            assert message.tag == wire.BYTES
            work(0.01)
            taken += 1
        done.set()
        await near.aclose()
        await far.aclose()
    assert taken == 100
    assert longest < 0.5  # of more than a second of work
