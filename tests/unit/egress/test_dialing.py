"""The system's resolver: a name that is never answered is in nobody else's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from sandbox.bulkheads.shares import Owner
from sandbox.egress.dialing import (
    RESOLVERS,
    RESOLVERS_OF_PRINCIPAL,
    RESOLVERS_OF_SESSION,
    SystemResolver,
    Unreachable,
)
from sandbox.policy.destinations import Address

pytestmark = pytest.mark.anyio

FOUND = (ip_address("93.184.215.14"),)
BOB = Owner("bob", "s-bob")


class Silence:
    """A look-up that answers nothing for names below ``silent.example``, until it is told to."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.stuck = 0

    def __call__(self, name: str) -> tuple[Address, ...]:
        if name.endswith("silent.example"):
            self.stuck += 1
            self.is_over.wait(60)
        return FOUND


@pytest.fixture
def silence() -> Iterator[Silence]:
    made = Silence()
    yield made
    made.is_over.set()


async def ask(resolver: SystemResolver, owners: list[Owner]) -> list[asyncio.Task[object]]:
    """Ask for a silent name for each owner, and wait until all threads that may be are stuck."""
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(resolver.resolve(f"{number}.silent.example", owner))
        for number, owner in enumerate(owners)
    ]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_silent_names_of_one_principal_do_not_hold_up_another(silence: Silence) -> None:
    resolver = SystemResolver(silence)
    sessions = [Owner("mallory", f"s-{number}") for number in range(20)]
    tasks = await ask(resolver, sessions * 10)
    async with asyncio.timeout(5):
        for _ in range(50):
            assert await resolver.resolve("www.example.com", BOB) == FOUND
    assert silence.stuck <= RESOLVERS_OF_PRINCIPAL
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_silent_names_of_one_session_do_not_hold_up_its_principals_other_one(
    silence: Silence,
) -> None:
    resolver = SystemResolver(silence)
    tasks = await ask(resolver, [Owner("bob", "s-bad")] * 50)
    async with asyncio.timeout(5):
        assert await resolver.resolve("www.example.com", BOB) == FOUND
    assert silence.stuck == RESOLVERS_OF_SESSION
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_many_principals_with_silent_names_leave_room_for_one_more(silence: Silence) -> None:
    resolver = SystemResolver(silence)
    tasks = await ask(resolver, [Owner(f"m-{n % 5}", f"s-{n}") for n in range(2 * RESOLVERS)])
    async with asyncio.timeout(5):
        assert await resolver.resolve("www.example.com", BOB) == FOUND
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_thread_that_nobody_waits_for_counts_until_it_ends(
    silence: Silence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.egress.dialing.RESOLVE_TIMEOUT_S", 0.05)
    resolver = SystemResolver(silence)
    for number in range(RESOLVERS_OF_SESSION + 3):
        with pytest.raises(Unreachable, match=r"not resolved within 0\.05 s"):
            await resolver.resolve(f"{number}.silent.example", BOB)
    assert silence.stuck == RESOLVERS_OF_SESSION
    with pytest.raises(Unreachable, match="this session has 4 names that are being looked up"):
        await resolver.resolve("www.example.com", BOB)
    silence.is_over.set()
    monkeypatch.setattr("sandbox.egress.dialing.RESOLVE_TIMEOUT_S", 20)
    assert await resolver.resolve("www.example.com", BOB) == FOUND


async def test_a_look_up_that_fails_says_why_and_gives_its_place_back() -> None:
    def fail(name: str) -> tuple[Address, ...]:
        raise OSError(2, "Name or service not known")

    resolver = SystemResolver(fail)
    for _ in range(3 * RESOLVERS_OF_SESSION):
        with pytest.raises(Unreachable, match="Name or service not known"):
            await resolver.resolve("www.example.com", BOB)
