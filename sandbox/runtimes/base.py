"""What a runtime must offer: containers by spec, and a byte stream into each.

The boundary between sessions and engines. ``sandbox.runtimes.docker`` talks to a Docker Engine,
``sandbox.runtimes.broker`` to a broker before one, ``sandbox.runtimes.fake`` keeps everything in
memory; all pass ``tests/contract``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sandbox.link import ByteStream
from sandbox.spec import ContainerSpec

ContainerState = Literal["created", "running", "exited", "missing"]


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What the engine says of a container.

    Args:
        id: The engine's id.
        name: The container's name.
        state: ``missing`` when there is none with that id.
        labels: Its labels.
        exit_code: Of the main process, once exited.
        oom_killed: Whether the engine says that the main process ran out of memory.
        facts: The isolation that the engine says it applied, in the words of
            :meth:`sandbox.spec.ContainerSpec.facts`; empty in listings.
    """

    id: str
    name: str
    state: ContainerState
    labels: Mapping[str, str]
    exit_code: int | None = None
    oom_killed: bool = False
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """What a container uses now: bytes, processes and CPU seconds since its start."""

    memory_bytes: int
    memory_limit_bytes: int
    pids: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is: version, cgroup version, runtimes it has, whether seccomp works."""

    name: str
    version: str
    api_version: str
    cgroup_version: int
    runtimes: tuple[str, ...]
    seccomp: bool
    architecture: str
    memory_bytes: int
    cpus: int
    data_root: str = ""
    """The directory that is the engine's own; empty when it does not say."""


class ContainerRuntime(Protocol):
    """Containers by spec. All calls may raise ``EngineUnavailable``."""

    async def engine(self) -> EngineInfo:
        """What the engine is."""
        ...

    async def has_image(self, reference: str) -> bool:
        """Whether the engine has an image of that reference."""
        ...

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container exactly as the spec says and return its id; nothing runs yet.

        Raises:
            ImageMissing: The engine does not have the spec's image.
            Conflict: A container of that name exists.
        """
        ...

    async def start(self, container_id: str) -> None:
        """Start the container's main process, the supervisor."""
        ...

    async def connect(self, container_id: str) -> ByteStream:
        """Exec the bridge in the container and return the byte stream to its supervisor.

        Raises:
            SessionLost: The container is gone or does not run.
        """
        ...

    async def inspect(self, container_id: str) -> ContainerInfo:
        """The container with its facts; ``state`` is ``missing`` when there is none."""
        ...

    async def list(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        """All containers, running or not, that carry all these labels."""
        ...

    async def remove(self, container_id: str) -> None:
        """Kill and remove the container with its volumes; harmless when there is none."""
        ...

    async def stats(self, container_id: str) -> ContainerStats:
        """What the container uses now.

        Raises:
            SessionLost: The container is gone or does not run.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the engine; containers go on."""
        ...
