"""Attacks on the controller's time and memory, and what a neighbour notices of them: nothing.

One served controller for all; the neighbour works through every attack and after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import anyio
import anyio.to_thread
import pytest

from ..support.attacks import COMMAS, MEMORY, PUBLISH, TIME, Attack, Attacker
from ..support.neighbour import BUSY, MIB, READY_S, Controller
from ..support.world import close_everything, policies, sink

pytestmark = [pytest.mark.anyio, pytest.mark.timed]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the policy ``out`` leads to."""
    with sink() as port:
        yield port


@pytest.fixture(scope="module")
async def controller(
    tmp_path_factory: pytest.TempPathFactory, port: int
) -> AsyncIterator[Controller]:
    """The controller of all tests here."""
    folder = tmp_path_factory.mktemp("neighbour")
    made = Controller(folder, **policies(folder, port))
    await anyio.to_thread.run_sync(made.start)
    try:
        yield made
    finally:
        await anyio.to_thread.run_sync(close_everything, made)
        await anyio.to_thread.run_sync(made.stop)


@pytest.fixture(scope="module")
def first_s(controller: Controller) -> float:
    """How long its first start took: of a test that is tried again, the latest was a late one."""
    return controller.ready_s


@pytest.fixture(scope="module")
async def tokens(controller: Controller) -> tuple[str, str]:
    """The attacker's tokens: of all scopes, and of the weakest."""
    return (
        await anyio.to_thread.run_sync(controller.token, "mallory"),
        await anyio.to_thread.run_sync(controller.token, "mallory", "files:read"),
    )


@pytest.fixture
def attacker(controller: Controller, tokens: tuple[str, str], port: int) -> Attacker:
    """The attacker, at the controller as it is now."""
    return Attacker(controller.served.base, *tokens, target=f"127.0.0.1:{port}")


@pytest.mark.parametrize("attack", TIME, ids=lambda attack: attack.__name__)
async def test_no_attack_takes_the_controllers_time_from_others(
    controller: Controller, attacker: Attacker, attack: Attack
) -> None:
    """Invariant 3: a neighbour's ``1 + 1`` is answered within a second, through and after it."""
    async with controller.watched() as watch:
        await attack(attacker)
    print(f"\n{attack.__name__}: {watch}")
    watch.check()


GROWTH_BYTES = {"a_flood_of_greetings": 40 * MIB}
"""Where less is already too much: 2,000 greetings take 84 MB where nothing bounds them."""


@pytest.mark.parametrize("attack", MEMORY, ids=lambda attack: attack.__name__)
async def test_no_attack_takes_the_controllers_memory(
    controller: Controller, attacker: Attacker, attack: Attack
) -> None:
    """Invariant 3: the controller grows by less than 200 MiB, whatever is streamed, shown or begun,
    and a neighbour is answered within a second."""
    async with controller.watched() as watch:
        await attack(attacker)
    print(f"\n{attack.__name__}: {watch}")
    watch.check(GROWTH_BYTES.get(attack.__name__, 200 * MIB))


async def test_a_message_that_no_controller_has_taken_holds_up_no_start(
    controller: Controller, attacker: Attacker, first_s: float
) -> None:
    """Invariant 9: what a kernel said while no controller ran is taken after the next start, which
    is ready within seconds, and a neighbour is answered within a second."""
    async with attacker.session() as session:
        code = f"{PUBLISH}\nimport time\ntime.sleep(4)\n{COMMAS}{COMMAS}{COMMAS}"
        begun = await session.call("execute_code", code=code, wait=0)
        assert begun["status"] == "running", begun
        await anyio.to_thread.run_sync(controller.kill)
    await anyio.sleep(5)  # in which the cell sends it: that is what this is about
    ready_s = await controller.restart()
    again = replace(attacker, base=controller.served.base)
    async with controller.watched() as watch:
        seen = await again.call("get_execution", execution_id=begun["execution_id"], wait=20)
        assert seen.get("status") != "running" or seen.get("code"), seen
    print(f"\nready after {ready_s:.1f} s ({first_s:.1f} s at first): {watch}")
    assert ready_s < max(READY_S, BUSY * first_s)
    watch.check()
