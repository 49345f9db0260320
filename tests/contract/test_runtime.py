from __future__ import annotations

import os
from collections.abc import Callable

import anyio
import pytest

from sandbox.container.features import Feature, require_enforceable, unreported, wishes
from sandbox.container.inspection import mismatches
from sandbox.container.spec import ContainerSpec
from sandbox.errors import Conflict, ImageMissing, SessionLost
from sandbox.runtimes.base import ContainerRuntime

from ..support.brokered import ABSENT_IMAGE
from ..support.specs import LABEL, linked, running

pytestmark = pytest.mark.anyio

Specs = Callable[..., ContainerSpec]


async def test_the_engine_says_what_it_is(runtime: ContainerRuntime) -> None:
    engine = await runtime.engine()
    assert "runc" in engine.runtimes
    assert engine.seccomp
    assert engine.cgroup_version in (1, 2)
    assert engine.cpus > 0
    assert engine.memory_bytes > 0
    assert engine.version
    assert engine.architecture


async def test_an_image_that_is_there_is_found(runtime: ContainerRuntime, make_spec: Specs) -> None:
    assert await runtime.has_image(make_spec().image)


async def test_a_container_keeps_its_labels_through_its_states(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    spec = make_spec()
    assert await runtime.list({LABEL: spec.labels[LABEL]}) == []
    container_id = await runtime.create(spec)

    [listed] = await runtime.list({LABEL: spec.labels[LABEL]})
    assert (listed.id, listed.name, listed.state) == (container_id, spec.name, "created")
    assert spec.labels.items() <= listed.labels.items()
    assert listed.annotations == spec.annotations
    assert await runtime.list({LABEL: spec.labels[LABEL], "other": "x"}) == []

    await runtime.start(container_id)
    assert [each.state for each in await runtime.list({LABEL: spec.labels[LABEL]})] == ["running"]
    inspected = await runtime.inspect(container_id)
    assert (inspected.state, inspected.name) == ("running", spec.name)
    assert spec.labels.items() <= inspected.labels.items()
    assert inspected.annotations == spec.annotations
    assert inspected.exit_code is None

    await runtime.remove(container_id)
    assert await runtime.list({LABEL: spec.labels[LABEL]}) == []


async def test_what_is_applied_is_what_the_spec_says(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    spec = make_spec()
    reports = (await runtime.engine()).reports
    container_id = await runtime.create(spec)
    assert mismatches(spec, (await runtime.inspect(container_id)).facts, reports) == []
    await runtime.start(container_id)
    facts = (await runtime.inspect(container_id)).facts or {}
    assert mismatches(spec, facts, reports) == []
    assert facts.keys() <= reports
    assert wishes(spec).keys() & reports <= facts.keys()


async def test_what_an_engine_says_that_it_can_is_all_that_a_spec_wishes(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    engine = await runtime.engine()
    require_enforceable(make_spec(), engine.enforces, engine.title)
    assert set(unreported(make_spec(), engine.reports)) <= {Feature.ENVIRONMENT}


async def test_the_link_reaches_the_supervisor_of_the_container(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    spec = make_spec()
    container_id = await running(runtime, spec)
    async with linked(await runtime.connect(container_id)) as link:
        told = await link.call("info")
    assert (told["uid"], told["gid"]) == (spec.uid, spec.gid)


async def test_bytes_of_any_value_and_number_come_back_unchanged(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    data = bytes(range(256)) * 4096 + os.urandom(2_000_000)
    container_id = await running(runtime, make_spec())
    async with linked(await runtime.connect(container_id)) as link:
        writing = link.open("file.write", path="data.bin")
        for start in range(0, len(data), 300_000):
            await writing.send(data[start : start + 300_000])
        writing.end()
        assert (await writing.receive_json())["size"] == len(data)
        reading = link.open("file.read", path="data.bin")
        reading.end()
        await reading.receive_json()
        assert b"".join([message.data async for message in reading]) == data


async def test_a_newer_link_replaces_the_older_one_and_finds_all_as_it_was(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    container_id = await running(runtime, make_spec())
    async with linked(await runtime.connect(container_id)) as older:
        writing = older.open("file.write", path="kept.txt")
        await writing.send(b"kept")
        writing.end()
        await writing.receive_json()
        async with linked(await runtime.connect(container_id)) as newer:
            await older.wait_closed()
            assert (await newer.call("file.stat", path="kept.txt"))["size"] == 4


async def test_a_link_can_be_made_again_after_it_was_closed(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    container_id = await running(runtime, make_spec())
    for _ in range(3):
        io = await runtime.connect(container_id)
        async with linked(io) as link:
            await link.call("info")
        await io.close()  # once more does no harm


async def test_removing_a_container_ends_its_links(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    container_id = await running(runtime, make_spec())
    async with linked(await runtime.connect(container_id)) as link:
        await runtime.remove(container_id)
        await link.wait_closed()
        assert link.error is None


async def test_removing_twice_does_no_harm_and_nothing_works_afterwards(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    container_id = await running(runtime, make_spec())
    await runtime.remove(container_id)
    await runtime.remove(container_id)
    assert (await runtime.inspect(container_id)).state == "missing"
    with pytest.raises(SessionLost):
        await runtime.connect(container_id)
    with pytest.raises(SessionLost):
        await runtime.start(container_id)
    with pytest.raises(SessionLost):
        await runtime.stats(container_id)


async def test_there_is_no_link_to_a_container_that_does_not_run(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    container_id = await runtime.create(make_spec())
    with pytest.raises(SessionLost):
        await runtime.connect(container_id)
    with pytest.raises(SessionLost):
        await runtime.stats(container_id)


async def test_a_name_is_taken_only_once(runtime: ContainerRuntime, make_spec: Specs) -> None:
    spec = make_spec()
    await runtime.create(spec)
    with pytest.raises(Conflict):
        await runtime.create(spec)
    assert len(await runtime.list({LABEL: spec.labels[LABEL]})) == 1


async def test_an_absent_image_is_named_in_the_error(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    spec = make_spec("datascience", ABSENT_IMAGE)
    assert not await runtime.has_image(ABSENT_IMAGE)
    with pytest.raises(ImageMissing, match=ABSENT_IMAGE):
        await runtime.create(spec)
    assert await runtime.list({LABEL: spec.labels[LABEL]}) == []


async def test_the_use_of_a_running_container_is_measured(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    spec = make_spec()
    container_id = await running(runtime, spec)
    async with linked(await runtime.connect(container_id)):
        used = await runtime.stats(container_id)
    assert used.memory_limit_bytes == spec.memory_bytes
    assert 0 < used.memory_bytes < used.memory_limit_bytes
    assert used.pids > 0
    assert used.cpu_s >= 0


async def test_many_containers_are_made_and_removed_at_once(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    specs = [make_spec() for _ in range(4)]

    async def live(spec: ContainerSpec) -> None:
        container_id = await running(runtime, spec)
        async with linked(await runtime.connect(container_id)) as link:
            assert (await link.call("info"))["uid"] == spec.uid
        await runtime.remove(container_id)

    async with anyio.create_task_group() as tasks:
        for spec in specs:
            tasks.start_soon(live, spec)
    assert await runtime.list({LABEL: specs[0].labels[LABEL]}) == []


async def test_a_paused_container_does_nothing_until_it_goes_on_and_its_link_stays(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    spec = make_spec()
    container_id = await running(runtime, spec)
    async with linked(await runtime.connect(container_id)) as link:
        await link.call("info")
        await runtime.pause(container_id)
        await runtime.pause(container_id)  # once more does no harm
        assert (await runtime.inspect(container_id)).state == "paused"
        assert [each.state for each in await runtime.list({LABEL: spec.labels[LABEL]})] == [
            "paused"
        ]
        assert (await runtime.stats(container_id)).memory_bytes > 0
        with anyio.move_on_after(0.3) as waiting:
            await link.call("info")
        assert waiting.cancelled_caught
        with pytest.raises(Conflict):
            await runtime.connect(container_id)
        await runtime.unpause(container_id)
        await runtime.unpause(container_id)
        assert (await link.call("info"))["uid"] == spec.uid
        assert (await runtime.inspect(container_id)).state == "running"


async def test_a_paused_container_can_be_removed(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    container_id = await running(runtime, make_spec())
    async with linked(await runtime.connect(container_id)) as link:
        await runtime.pause(container_id)
        await runtime.remove(container_id)
        with anyio.fail_after(10):
            await link.wait_closed()
    assert (await runtime.inspect(container_id)).state == "missing"


async def test_what_does_not_run_is_neither_paused_nor_let_go_on(
    runtime: ContainerRuntime, make_spec: Specs
) -> None:
    container_id = await runtime.create(make_spec())
    for act in (runtime.pause, runtime.unpause):
        with pytest.raises(SessionLost):
            await act(container_id)
    await runtime.remove(container_id)
    for act in (runtime.pause, runtime.unpause):
        with pytest.raises(SessionLost):
            await act(container_id)
