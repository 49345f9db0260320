"""The engine goes away, hangs and comes back: a proxy before it is cut, never the engine itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import anyio
import pytest

from sandbox.container.spec import ContainerSpec
from sandbox.errors import EngineUnavailable
from sandbox.link.link import Link
from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support.engines import EngineProxy, proxied
from ..support.specs import LABEL, linked, running, specs_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def proxy() -> AsyncIterator[EngineProxy]:
    async with proxied() as proxy:
        yield proxy


@pytest.fixture
async def runtime(proxy: EngineProxy) -> AsyncIterator[DockerRuntime]:
    """Sees the engine through the proxy."""
    runtime = DockerRuntime.connect_engine(host=proxy.url, timeout_s=5, environ={})
    yield runtime
    await runtime.aclose()


@pytest.fixture
async def direct() -> AsyncIterator[DockerRuntime]:
    """Sees the engine whatever happens to the proxy."""
    runtime = DockerRuntime.connect_engine(environ={})
    yield runtime
    await runtime.aclose()


@pytest.fixture
async def make_spec(direct: DockerRuntime) -> AsyncIterator[Callable[[], ContainerSpec]]:
    async with specs_of(direct) as make:
        yield make


@pytest.mark.timed
async def test_an_engine_that_is_down_is_named_soon_and_found_again(
    proxy: EngineProxy, runtime: DockerRuntime
) -> None:
    await proxy.cut()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(EngineUnavailable) as caught:
            await runtime.engine()
        assert time.monotonic() - began < 4
        assert proxy.url in caught.value.message
        assert caught.value.remedy
    await proxy.listen()
    assert (await runtime.engine()).version


async def test_every_call_says_so_while_the_engine_is_down(
    proxy: EngineProxy, runtime: DockerRuntime, make_spec: Callable[[], ContainerSpec]
) -> None:
    await runtime.engine()
    await proxy.cut()
    container_id = "0" * 64
    calls = (
        runtime.engine(),
        runtime.create(make_spec()),
        runtime.start(container_id),
        runtime.connect(container_id),
        runtime.inspect(container_id),
        runtime.list({"a": "b"}),
        runtime.remove(container_id),
        runtime.stats(container_id),
    )
    for call in calls:
        with pytest.raises(EngineUnavailable):
            await call
    await proxy.listen()
    assert (await runtime.inspect(container_id)).state == "missing"


async def test_a_missing_socket_is_an_engine_that_is_not_there(tmp_path: object) -> None:
    runtime = DockerRuntime.connect_engine(host=f"unix://{tmp_path}/docker.sock", environ={})
    with pytest.raises(EngineUnavailable, match="nothing listens"):
        await runtime.engine()
    await runtime.aclose()


@pytest.mark.timed
async def test_an_engine_that_hangs_is_given_up_in_time_and_found_again(
    proxy: EngineProxy,
) -> None:
    async with aclosing(
        DockerRuntime.connect_engine(host=proxy.url, timeout_s=0.5, environ={})
    ) as runtime:
        await runtime.engine()
        proxy.freeze()
        began = time.monotonic()
        with pytest.raises(EngineUnavailable, match="in time"):
            await runtime.list({"a": "b"})
        assert time.monotonic() - began < 4
        proxy.break_connections()
        assert await runtime.list({"a": "b"}) == []


async def test_a_connection_that_breaks_in_the_middle_of_a_question_is_asked_again(
    proxy: EngineProxy, runtime: DockerRuntime
) -> None:
    await runtime.engine()
    proxy.freeze()
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(runtime.list({"a": "b"}))
        await proxy.held.wait()
        proxy.break_connections()
    assert asking.result() == []


async def test_a_creation_that_is_cut_is_not_done_twice(
    proxy: EngineProxy,
    runtime: DockerRuntime,
    direct: DockerRuntime,
    make_spec: Callable[[], ContainerSpec],
) -> None:
    await runtime.engine()
    spec = make_spec()
    before = proxy.accepted
    proxy.freeze()

    async def create() -> None:
        with pytest.raises(EngineUnavailable):
            await runtime.create(spec)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(create())
        await proxy.held.wait()
        proxy.break_connections()
    assert proxy.accepted <= before + 1
    assert len(await direct.list({LABEL: spec.labels[LABEL]})) <= 1


async def test_a_link_cut_by_the_engine_ends_and_the_container_goes_on(
    proxy: EngineProxy,
    runtime: DockerRuntime,
    make_spec: Callable[[], ContainerSpec],
) -> None:
    container_id = await running(runtime, make_spec())
    async with linked(await runtime.connect(container_id)) as link:
        writing = link.open("file.write", path="kept.txt")
        await writing.send(b"kept")
        writing.end()
        await writing.receive_json()
        await proxy.cut()
        await link.wait_closed()
        with pytest.raises(EngineUnavailable):
            await runtime.connect(container_id)
    await proxy.listen()
    async with linked(await runtime.connect(container_id)) as link:
        assert (await link.call("file.stat", path="kept.txt"))["size"] == 4


async def test_a_link_over_an_engine_that_hangs_is_noticed_by_its_silence(
    proxy: EngineProxy,
    runtime: DockerRuntime,
    make_spec: Callable[[], ContainerSpec],
) -> None:
    container_id = await running(runtime, make_spec())
    link = Link(await runtime.connect(container_id), initiator=True, hello={}, ping_interval_s=0.5)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            await link.greeting()
            proxy.freeze()
            await link.wait_closed()
    assert link.error is not None
    assert link.error.code == "link_lost"
