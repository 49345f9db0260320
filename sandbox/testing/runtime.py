"""The runtime contract in memory."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from sandbox.container.features import ALL, REPORTABLE, Feature, values_of
from sandbox.container.spec import ContainerSpec
from sandbox.errors import (
    Conflict,
    EngineUnavailable,
    ImageMissing,
    InfrastructureError,
    SessionLost,
)
from sandbox.link.link import ByteStream
from sandbox.link.memory import MemoryStream, pipe
from sandbox.runtimes.base import ContainerInfo, ContainerState, ContainerStats, EngineInfo
from sandbox.testing.supervisor import FakeSupervisor

Facts = dict[str, Any]


class _Container:
    """A container: its spec, its supervisor and the tasks of both."""

    def __init__(self, container_id: str, spec: ContainerSpec) -> None:
        self.id = container_id
        self.spec = spec
        self.state: ContainerState = "created"
        self.exit_code: int | None = None
        self.oom_killed = False
        self.started_at = 0.0
        self.supervisor: FakeSupervisor | None = None
        self.links: list[MemoryStream] = []
        self.goes_on = asyncio.Event()
        """Set unless it is paused."""
        self.goes_on.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a part of the container; containers outlive whoever called, so no group holds it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, exit_code: int, *, oom_killed: bool = False) -> None:
        """End the main process and all that runs inside."""
        if self.state not in ("running", "paused"):
            return
        self.goes_on.set()
        self.state, self.exit_code, self.oom_killed = "exited", exit_code, oom_killed
        for link in self.links:
            link.cut()
        if self.supervisor is not None:
            await self.supervisor.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _PausableStream:
    """The container's end of a link, over which nothing moves while the container is paused."""

    def __init__(self, stream: MemoryStream, container: _Container) -> None:
        self._stream = stream
        self._container = container

    async def read(self) -> bytes:
        data = await self._stream.read()
        await self._container.goes_on.wait()
        return data

    async def write(self, data: bytes) -> None:
        await self._container.goes_on.wait()
        await self._stream.write(data)

    async def close(self) -> None:
        await self._stream.close()


class FakeEngine:
    """What outlives a runtime object: the containers, and the images, of which None are all.

    Give it to a second ``FakeRuntime`` to act as the same engine seen by another controller.
    """

    def __init__(
        self,
        images: frozenset[str] | None = None,
        runtimes: tuple[str, ...] = ("runc",),
        *,
        enforces: frozenset[Feature] = ALL,
        reports: frozenset[Feature] = REPORTABLE,
    ) -> None:
        self.images = images
        self.runtimes = runtimes
        self.enforces = enforces
        self.reports = reports
        self.containers: dict[str, _Container] = {}
        self.can_pause = True
        self.is_down = False
        """While True every call raises ``EngineUnavailable``; see :meth:`cut_links`."""
        self.alter_facts: Callable[[Facts], Facts] = lambda facts: facts
        """What ``inspect`` is to report instead of the truth."""
        self.probe: Facts = {}
        """Facts that the probe of containers started from now on gets wrong."""
        self.numbers = itertools.count(1)

    def cut_links(self) -> None:
        """Cut every link, as a restarted engine does; containers go on."""
        for container in self.containers.values():
            for link in container.links:
                link.cut()
            container.links.clear()

    async def kill(self, container_id: str, exit_code: int = 137, *, oom: bool = False) -> None:
        """End a container's main process from outside."""
        await self.containers[container_id].stop(exit_code, oom_killed=oom)


class FakeRuntime:
    """Containers that exist only as objects, for tests."""

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.fake = engine or FakeEngine()
        self._links: list[MemoryStream] = []

    async def engine(self) -> EngineInfo:
        """What the engine is."""
        self._reach()
        return EngineInfo(
            name="fake",
            version="0",
            api_version="0",
            cgroup_version=2,
            runtimes=self.fake.runtimes,
            seccomp=True,
            architecture="x86_64",
            memory_bytes=8 * 1024**3,
            cpus=2,
            enforces=self.fake.enforces,
            reports=self.fake.reports,
        )

    async def has_image(self, reference: str) -> bool:
        """Whether it was given an image of that reference."""
        self._reach()
        return self.fake.images is None or reference in self.fake.images

    async def create(self, spec: ContainerSpec) -> str:
        """Keep a container of this spec and return its id."""
        self._reach()
        if self.fake.images is not None and spec.image not in self.fake.images:
            raise ImageMissing(f"There is no image {spec.image}.")
        if any(known.spec.name == spec.name for known in self.fake.containers.values()):
            raise Conflict(f"There is a container named {spec.name} already.")
        container_id = f"{next(self.fake.numbers):064x}"
        self.fake.containers[container_id] = _Container(container_id, spec)
        return container_id

    async def start(self, container_id: str) -> None:
        """Start the container's supervisor."""
        self._reach()
        container = self._present(container_id)
        if container.state == "running":
            return
        container.supervisor = FakeSupervisor(container.spec, probe=self.fake.probe)
        container.state, container.started_at = "running", time.monotonic()

    async def pause(self, container_id: str) -> None:
        """Have nothing move over the container's links."""
        self._reach()
        container, _ = self._there(container_id)
        if not self.fake.can_pause:
            raise InfrastructureError("The fake engine pauses nothing.")
        container.state = "paused"
        container.goes_on.clear()

    async def unpause(self, container_id: str) -> None:
        """Let what waits move."""
        self._reach()
        container, _ = self._there(container_id)
        container.state = "running"
        container.goes_on.set()

    async def connect(self, container_id: str) -> ByteStream:
        """A byte stream to the container's supervisor."""
        self._reach()
        if self._present(container_id).state == "paused":
            raise Conflict(f"The container {container_id:.12} is paused.")
        container, supervisor = self._there(container_id)
        ours, theirs = pipe()
        container.links.append(ours)
        self._links.append(ours)
        container.spawn(supervisor.serve(_PausableStream(theirs, container)))
        return ours

    async def inspect(self, container_id: str) -> ContainerInfo:
        """The container with its facts."""
        self._reach()
        container = self.fake.containers.get(container_id)
        if container is None:
            return ContainerInfo(id=container_id, name="", state="missing", labels={})
        told = {
            str(feature): value
            for feature, value in values_of(container.spec).items()
            if feature in self.fake.reports
        }
        return self._info(container, self.fake.alter_facts(told))

    async def list(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        """All containers that carry all these labels."""
        self._reach()
        return [
            replace(self._info(container), exit_code=None, oom_killed=False)
            for container in self.fake.containers.values()
            if labels.items() <= container.spec.labels.items()
        ]

    async def remove(self, container_id: str) -> None:
        """Forget the container; harmless when there is none."""
        self._reach()
        container = self.fake.containers.pop(container_id, None)
        if container is not None:
            await container.stop(137)

    async def stats(self, container_id: str) -> ContainerStats:
        """Made-up numbers of the right kind."""
        self._reach()
        container, _ = self._there(container_id)
        return ContainerStats(
            memory_bytes=64 * 1024**2,
            memory_limit_bytes=container.spec.memory_bytes,
            pids=3,
            cpu_s=time.monotonic() - container.started_at,
        )

    async def aclose(self) -> None:
        """Cut the links made here; containers go on."""
        for link in self._links:
            link.cut()
        self._links.clear()

    def _reach(self) -> None:
        if self.fake.is_down:
            raise EngineUnavailable("The fake engine is down.", remedy="Set is_down to False.")

    def _present(self, container_id: str) -> _Container:
        container = self.fake.containers.get(container_id)
        if container is None:
            raise SessionLost(f"There is no container {container_id:.12}.")
        return container

    def _there(self, container_id: str) -> tuple[_Container, FakeSupervisor]:
        container = self._present(container_id)
        if container.state not in ("running", "paused") or container.supervisor is None:
            raise SessionLost(f"The container {container_id:.12} does not run.")
        return container, container.supervisor

    def _info(self, container: _Container, facts: Facts | None = None) -> ContainerInfo:
        return ContainerInfo(
            id=container.id,
            name=container.spec.name,
            state=container.state,
            labels=dict(container.spec.labels),
            annotations=dict(container.spec.annotations),
            exit_code=container.exit_code,
            oom_killed=container.oom_killed,
            facts=facts,
        )
