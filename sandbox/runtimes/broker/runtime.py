"""Containers through a broker: ``sandbox.broker`` at the other end of a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sandbox.container.spec import ContainerSpec
from sandbox.errors import ConfigError, EngineUnavailable, ProtocolError
from sandbox.link.link import ByteStream
from sandbox.runtimes.base import ContainerInfo, ContainerStats, EngineInfo
from sandbox.runtimes.broker import protocol
from sandbox.runtimes.broker.relayed import BrokerStream

SCHEME = "broker://"
CALL_TIMEOUT_S = 60.0
"""Longer than a broker waits for its engine."""

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class BrokerRuntime:
    """The runtime contract through a broker, each call on a connection of its own.

    Args:
        url: ``broker:///path/of/its/socket``.

    Raises:
        ConfigError: The address cannot be used.
    """

    def __init__(self, url: str, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if f"{parts.scheme}://" != SCHEME or parts.netloc or not parts.path.strip("/"):
            raise ConfigError(
                f"{url!r} is not a broker's address.", remedy="Write broker:///path/of/its/socket."
            )
        self.address = url
        self._path = parts.path
        self._timeout_s = timeout_s

    async def engine(self) -> EngineInfo:
        """What the engine is."""
        return await self._ask(protocol.Engine(), EngineInfo)

    async def has_image(self, reference: str) -> bool:
        """Whether the engine has an image that one of the broker's policies names."""
        return await self._ask(protocol.Image(reference=reference), bool)

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container exactly as the spec says and return its id; nothing runs yet.

        Raises:
            NotPermitted: The broker's own policies do not make the same spec of these labels.
        """
        return await self._ask(protocol.Create(spec=spec), protocol.ContainerId)

    async def start(self, container_id: str) -> None:
        """Start the container's main process, the supervisor."""
        await self._ask(protocol.OfContainer(op="start", container=container_id), None)

    async def pause(self, container_id: str) -> None:
        """Stop every process of the container where it is; harmless when that is so already."""
        await self._ask(protocol.OfContainer(op="pause", container=container_id), None)

    async def unpause(self, container_id: str) -> None:
        """Let every process of the container go on; harmless when they do."""
        await self._ask(protocol.OfContainer(op="unpause", container=container_id), None)

    async def connect(self, container_id: str) -> ByteStream:
        """Exec the bridge and return the byte stream to the supervisor."""
        request = protocol.OfContainer(op="connect", container=container_id)
        connection, _ = await self._call(request, None, limit=protocol.READ_SIZE)
        return BrokerStream(*connection)

    async def inspect(self, container_id: str) -> ContainerInfo:
        """The container with its facts; ``missing`` when it is none of the broker's."""
        request = protocol.OfContainer(op="inspect", container=container_id)
        return await self._ask(request, ContainerInfo)

    async def list(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        """The broker's containers, running or not, that carry all these labels."""
        return await self._ask(protocol.List(labels=dict(labels)), list[ContainerInfo])

    async def remove(self, container_id: str) -> None:
        """Kill and remove the container; harmless when it is none of the broker's."""
        await self._ask(protocol.OfContainer(op="remove", container=container_id), None)

    async def stats(self, container_id: str) -> ContainerStats:
        """What the container uses now."""
        request = protocol.OfContainer(op="stats", container=container_id)
        return await self._ask(request, ContainerStats)

    async def aclose(self) -> None:
        """Nothing is kept between calls."""

    async def _ask(self, request: protocol.Request, kind: Any) -> Any:
        (_, writer), answer = await self._call(request, kind, limit=protocol.MAX_ANSWER_BYTES)
        writer.transport.abort()
        return answer

    async def _call(
        self, request: protocol.Request, kind: Any, *, limit: int
    ) -> tuple[_Connection, Any]:
        """Send a request and return the open connection with the answer.

        Raises:
            EngineUnavailable: The broker cannot be reached, or does not answer in time.
            ProtocolError: What answers is no broker.
            SandboxError: What the broker refused with.
        """
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await asyncio.open_unix_connection(self._path, limit=limit)
                reader, writer = connection
                writer.write(protocol.encode_request(request))
                # Not drained: a broker that refuses without reading has said why.
                line = await reader.readuntil(protocol.END)
                return connection, protocol.decode_answer(kind, line)
        except BaseException as exc:
            if connection is not None:
                connection[1].transport.abort()
            if isinstance(exc, asyncio.LimitOverrunError):
                raise ProtocolError("The engine broker's answer has no end.") from exc
            if isinstance(exc, OSError | EOFError):
                raise self._unavailable(exc) from exc
            raise

    def _unavailable(self, cause: Exception) -> EngineUnavailable:
        remedy = "Start `sandbox broker` with this socket."
        if isinstance(cause, TimeoutError):
            what = "did not answer in time"
        elif isinstance(cause, PermissionError):
            what = "may not be used by this user"
            remedy = "Start `sandbox broker` with --allow-uid and the uid of this controller."
        elif isinstance(cause, FileNotFoundError | ConnectionRefusedError):
            what = "is not there: nothing listens"
        else:
            what = "closed the connection without an answer"
        return EngineUnavailable(f"The engine broker at {self.address} {what}.", remedy=remedy)
