"""What a runtime must offer: containers by spec, and a byte stream into each.

The boundary between sessions and engines. ``sandbox.runtimes.docker`` talks to a Docker Engine,
``sandbox.runtimes.broker`` to a broker before one, ``sandbox.testing`` keeps everything in
memory; all pass ``tests/contract``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sandbox.container.engine import ContainerInfo, ContainerState, EngineInfo
from sandbox.container.spec import ContainerSpec
from sandbox.link.link import ByteStream

__all__ = [
    "ContainerInfo",
    "ContainerRuntime",
    "ContainerState",
    "ContainerStats",
    "EngineInfo",
]


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """What a container uses now: bytes, processes and CPU seconds since its start."""

    memory_bytes: int
    memory_limit_bytes: int
    pids: int
    cpu_s: float


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

    async def pause(self, container_id: str) -> None:
        """Stop every process of the container where it is; harmless when that is so already.

        Until :meth:`unpause` nothing in it runs, nobody can connect, and its links stay: what is
        sent over them waits. It can be inspected, measured and removed.

        Raises:
            SessionLost: The container is gone or does not run.
            InfrastructureError: What runs the container cannot stop it.
        """
        ...

    async def unpause(self, container_id: str) -> None:
        """Let every process of the container go on; harmless when they do.

        Raises:
            SessionLost: The container is gone or does not run.
        """
        ...

    async def connect(self, container_id: str) -> ByteStream:
        """Exec the bridge in the container and return the byte stream to its supervisor.

        Raises:
            SessionLost: The container is gone or does not run.
            Conflict: It is paused.
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
