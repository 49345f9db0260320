"""Places that all share: who fills its share is in nobody else's way."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.bulkheads.shares import FEW, Owner, Shares

pytestmark = pytest.mark.anyio

ADA, ADA_TOO, BOB = Owner("ada", "s-1"), Owner("ada", "s-2"), Owner("bob", "s-3")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_session_has_its_share_and_a_principal_has_one_over_all_its_sessions() -> None:
    shares = Shares("doors", 100, 5, 3)
    assert [shares.take(ADA) for _ in range(3)] == [""] * 3
    assert shares.take(ADA) == "this session has 3 doors, which is its share"
    assert [shares.take(ADA_TOO) for _ in range(2)] == [""] * 2
    assert "your sessions have 5 doors together" in shares.take(ADA_TOO)
    assert shares.take(BOB) == ""
    shares.give(ADA)
    assert shares.take(ADA_TOO) == ""
    assert shares.taken == 6


def test_the_last_places_are_for_those_who_have_few() -> None:
    shares = Shares("doors", 16, 12, 12)
    while not shares.take(ADA):
        pass
    assert shares.taken == 12
    assert [shares.take(BOB) for _ in range(FEW)] == [""] * FEW
    assert "the sessions of all callers have 16 doors" in shares.take(Owner("eve"))


async def test_who_waits_gets_the_first_place_that_it_may_have() -> None:
    shares = Shares("doors", 100, 100, 1)
    assert not shares.take(ADA)
    assert not shares.take(BOB)
    waiting = [asyncio.create_task(shares.wait(owner)) for owner in (ADA, BOB, ADA)]
    await asyncio.sleep(0)
    shares.give(BOB)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [False, True, False]
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    shares.give(ADA)
    await asyncio.wait_for(waiting[2], 5)
    assert shares.taken == 2


async def test_who_has_least_is_next_however_many_of_another_wait_before_it() -> None:
    shares = Shares("doors", 2, 2, 2)
    assert [shares.take(ADA), shares.take(ADA)] == ["", ""]
    queue = [asyncio.create_task(shares.wait(ADA)) for _ in range(100)]
    await asyncio.sleep(0)
    late = asyncio.create_task(shares.wait(BOB))
    await asyncio.sleep(0)
    shares.give(ADA)
    await asyncio.wait_for(late, 5)
    assert not any(task.done() for task in queue)
    for task in queue:
        task.cancel()
    await asyncio.wait(queue)


async def test_a_place_is_given_back_however_its_block_ends() -> None:
    shares = Shares("doors", 1, 1, 1)

    async def fail() -> None:
        async with shares.place(ADA):
            assert shares.taken == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert shares.taken == 0


async def test_a_wait_that_is_given_up_as_its_turn_comes_takes_nothing() -> None:
    shares = Shares("doors", 1, 1, 1)
    assert not shares.take(ADA)
    waiting = asyncio.create_task(shares.wait(BOB))
    await asyncio.sleep(0)
    shares.give(ADA)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert shares.taken == 0
