from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sandbox.container.features import ALL, Feature
from sandbox.container.labels import LABEL_BROKER, LABEL_OWNER
from sandbox.errors import Conflict, EngineUnavailable, NotPermitted, QuotaExceeded, SessionLost
from sandbox.testing import FakeEngine, FakeRuntime

from .brokers import MARK, served, spec

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeRuntime:
    return FakeRuntime(FakeEngine(frozenset({"sandbox/python:test"}), ("runc", "runsc")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.sock"


async def test_a_container_is_made_marked_and_found_again(engine: FakeRuntime, path: Path) -> None:
    asked = spec()
    async with served(engine, path) as (client, _):
        container_id = await client.create(asked)
        [found] = await client.list({LABEL_OWNER: asked.labels[LABEL_OWNER]})
        assert found.id == container_id
        assert found.labels == {**asked.labels, LABEL_BROKER: MARK}
        await client.remove(container_id)
    assert not engine.fake.containers


async def test_a_refused_spec_changes_nothing(engine: FakeRuntime, path: Path) -> None:
    async with served(engine, path) as (client, _):
        with pytest.raises(NotPermitted, match="privileged"):
            await client.create(spec().model_copy(update={"privileged": True}))
    assert not engine.fake.containers


async def test_containers_of_others_look_absent_and_stay_untouched(
    engine: FakeRuntime, path: Path
) -> None:
    asked = spec()
    foreign = await engine.create(asked)
    await engine.start(foreign)
    async with served(engine, path, mark="a" * 32) as (client, _):
        assert (await client.inspect(foreign)).state == "missing"
        assert (await client.inspect(foreign)).labels == {}
        assert await client.list({}) == []
        assert await client.list({LABEL_BROKER: MARK}) == []
        await client.remove(foreign)
        answers: list[str] = []
        for act in (client.start, client.pause, client.unpause, client.connect, client.stats):
            for container_id in (foreign, "0" * 64):
                with pytest.raises(SessionLost) as caught:
                    await act(container_id)
                answers.append(caught.value.message.replace(container_id[:12], "ID"))
    assert len(set(answers)) == 1
    assert (await engine.inspect(foreign)).state == "running"


async def test_another_broker_of_the_same_mark_goes_on_with_the_containers(
    engine: FakeRuntime, path: Path
) -> None:
    async with served(engine, path) as (client, _):
        container_id = await client.create(spec())
    async with served(engine, path, limit=1) as (client, _):
        await client.start(container_id)
        with pytest.raises(QuotaExceeded):
            await client.create(spec())
        assert (await client.stats(container_id)).pids > 0
        await client.remove(container_id)
        await client.remove(container_id)
        assert await client.create(spec())


async def test_containers_are_bounded_however_many_are_asked_for_at_once(
    engine: FakeRuntime, path: Path
) -> None:
    refused: list[str] = []

    async def create() -> None:
        try:
            await client.create(spec())
        except QuotaExceeded as exc:
            refused.append(exc.code)

    async with served(engine, path, limit=3) as (client, _):
        async with anyio.create_task_group() as tasks:
            for _ in range(9):
                tasks.start_soon(create)
        assert len(engine.fake.containers) == 3
        assert len(refused) == 6
        # One that vanished behind the broker's back makes room, too.
        await engine.remove(next(iter(engine.fake.containers)))
        assert await client.create(spec())


async def test_no_two_containers_share_a_uid(engine: FakeRuntime, path: Path) -> None:
    async with served(engine, path) as (client, _):
        first = await client.create(spec(uid=300_000))
        with pytest.raises(Conflict):
            await client.create(spec(uid=300_000))
        await client.remove(first)
        assert await client.create(spec(uid=300_000))


async def test_an_image_that_no_policy_names_is_never_there(
    engine: FakeRuntime, path: Path
) -> None:
    engine.fake.images = frozenset({"sandbox/python:test", "secret/project:1"})
    async with served(engine, path) as (client, _):
        assert await client.has_image("sandbox/python:test")
        assert not await client.has_image("sandbox/datascience:test")
        assert not await client.has_image("secret/project:1")


async def test_an_engine_that_is_down_is_told_as_that_and_found_again(
    engine: FakeRuntime, path: Path
) -> None:
    async with served(engine, path) as (client, _):
        engine.fake.is_down = True
        for call in (client.engine(), client.create(spec()), client.list({})):
            with pytest.raises(EngineUnavailable, match="fake engine is down"):
                await call
        engine.fake.is_down = False
        assert await client.create(spec())


async def test_what_the_engine_can_is_told_through_the_broker_and_counts_at_both_ends(
    engine: FakeRuntime, path: Path
) -> None:
    asked = spec()
    engine.fake.enforces = ALL - {Feature.PIDS}
    async with served(engine, path) as (client, _):
        assert await client.engine() == await engine.engine()
        with pytest.raises(NotPermitted, match="cannot enforce"):
            await client.create(asked)
    assert not engine.fake.containers
