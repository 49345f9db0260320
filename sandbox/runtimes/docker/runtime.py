"""Containers on a Docker Engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import anyio
import anyio.to_thread
import docker.errors
import requests.exceptions
import tenacity

from sandbox.errors import Conflict, SessionLost
from sandbox.link import ByteStream
from sandbox.runtimes.base import ContainerInfo, ContainerStats, EngineInfo
from sandbox.runtimes.docker.client import Client, make_client
from sandbox.runtimes.docker.container import create_request, info_of, listed, stats_of
from sandbox.runtimes.docker.endpoint import Connection, Endpoint, find_endpoint
from sandbox.runtimes.docker.errors import refused, translated, unavailable
from sandbox.runtimes.docker.stream import ExecStream
from sandbox.spec import ContainerSpec

BRIDGE = ["/usr/bin/python3", "-I", "-S", "/opt/sandbox/bridge.py"]
MAX_CONCURRENT_CALLS = 16
MAX_ANSWER_BYTES = 64 * 1024
DEFAULT_TIMEOUT_S = 30.0

T = TypeVar("T")


class DockerRuntime:
    """The runtime contract on a Docker Engine; made by :meth:`connect_engine`.

    docker-py blocks, so every call of it runs in a thread; the streams of containers do not.

    Args:
        endpoint: Where the engine is.
        timeout_s: For connecting, and between two bytes of an answer.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._limiter = anyio.CapacityLimiter(MAX_CONCURRENT_CALLS)
        self._lock = threading.Lock()
        self._made: tuple[Client, str] | None = None

    @classmethod
    def connect_engine(
        cls,
        *,
        host: str = "",
        context: str = "",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        environ: Mapping[str, str] | None = None,
    ) -> DockerRuntime:
        """A runtime for the engine that is meant, in this order: ``host``, ``context``,
        ``DOCKER_HOST``, ``DOCKER_CONTEXT``, the current Docker context, the local socket.

        Nothing is sent yet: an engine that is down is noticed by the first call, and found again
        by the first call after it is back.

        Raises:
            ConfigError: The address, the context or the certificates cannot be used.
        """
        found = find_endpoint(host, context, os.environ if environ is None else environ)
        return cls(found, timeout_s=timeout_s)

    @property
    def address(self) -> str:
        """The engine's address."""
        return self._endpoint.url

    async def engine(self) -> EngineInfo:
        """What the engine is."""

        def ask(client: Client) -> EngineInfo:
            told, version = client.info(), client.version()
            return EngineInfo(
                name=str(told.get("Name", "")),
                version=str(version.get("Version", "")),
                api_version=str(version.get("ApiVersion", "")),
                cgroup_version=int(told.get("CgroupVersion") or 1),
                runtimes=tuple(sorted(told.get("Runtimes") or ())),
                seccomp=any("seccomp" in option for option in told.get("SecurityOptions") or ()),
                architecture=str(told.get("Architecture", "")),
                memory_bytes=int(told.get("MemTotal") or 0),
                cpus=int(told.get("NCPU") or 0),
                data_root=str(told.get("DockerRootDir") or ""),
            )

        return await self._call("say what it is", ask, idempotent=True)

    async def has_image(self, reference: str) -> bool:
        """Whether the engine has an image of that reference."""

        def ask(client: Client) -> bool:
            try:
                client.inspect_image(reference)
            except docker.errors.ImageNotFound:
                return False
            return True

        return await self._call(f"look for the image {reference}", ask, idempotent=True)

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container exactly as the spec says and return its id; nothing runs yet."""
        request = create_request(spec)
        answer = await self._call(
            f"create the container {spec.name}",
            lambda client: client.create_container_from_config(request, spec.name),
        )
        return str(answer["Id"])

    async def start(self, container_id: str) -> None:
        """Start the container's main process, the supervisor."""
        await self._call(
            f"start the container {container_id:.12}", lambda client: client.start(container_id)
        )

    async def connect(self, container_id: str) -> ByteStream:
        """Exec the bridge and return the byte stream to the supervisor.

        The exec runs as the container's own user: the engine's default.
        """
        doing = f"connect to the container {container_id:.12}"

        def prepare(client: Client) -> str:
            made = client.exec_create(container_id, BRIDGE, stdin=True, tty=False)
            return f"/v{self._client()[1]}/exec/{made['Id']}/start"

        try:
            path = await self._call(doing, prepare)
            reader, writer = await self._start_exec(path, doing)
        except Conflict as exc:  # the engine's word for a container that does not run
            raise SessionLost(exc.message) from exc
        return ExecStream(reader, writer, f"the bridge of {container_id:.12}")

    async def inspect(self, container_id: str) -> ContainerInfo:
        """The container with its facts; ``state`` is ``missing`` when there is none."""

        def ask(client: Client) -> ContainerInfo:
            try:
                return info_of(client.inspect_container(container_id))
            except docker.errors.NotFound:
                return ContainerInfo(id=container_id, name="", state="missing", labels={})

        return await self._call(f"inspect the container {container_id:.12}", ask, idempotent=True)

    async def list(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        """All containers, running or not, that carry all these labels."""
        wanted = {"label": [f"{name}={value}" for name, value in labels.items()]}
        found = await self._call(
            "list containers",
            lambda client: client.containers(all=True, filters=wanted),
            idempotent=True,
        )
        return [listed(entry) for entry in found]

    async def remove(self, container_id: str) -> None:
        """Kill and remove the container with its volumes; harmless when there is none."""

        def remove(client: Client) -> None:
            with contextlib.suppress(docker.errors.NotFound):
                _until_free(client.remove_container, container_id, force=True, v=True)

        await self._call(f"remove the container {container_id:.12}", remove, idempotent=True)

    async def stats(self, container_id: str) -> ContainerStats:
        """What the container uses now."""
        found = await self._call(
            f"measure the container {container_id:.12}",
            lambda client: stats_of(client.stats(container_id, stream=False, one_shot=True)),
            idempotent=True,
        )
        if found is None:
            raise SessionLost(f"The container {container_id:.12} does not run.")
        return found

    async def aclose(self) -> None:
        """Let go of the engine; containers go on."""

        def close() -> None:
            with self._lock:
                made, self._made = self._made, None
            if made:
                made[0].close()
            self._endpoint.close()

        await anyio.to_thread.run_sync(close, limiter=self._limiter)

    # --- calls

    async def _call(
        self, doing: str, action: Callable[[Client], T], *, idempotent: bool = False
    ) -> T:
        """Run docker-py in a thread; what may be done twice is tried again on a lost connection."""

        def call() -> T:
            client, _ = self._client()
            return _again(action, client) if idempotent else action(client)

        with translated(doing, self.address):
            return await anyio.to_thread.run_sync(call, limiter=self._limiter)

    def _client(self) -> tuple[Client, str]:
        with self._lock:
            if self._made is None:
                self._made = make_client(
                    self._endpoint,
                    timeout_s=self._timeout_s,
                    connections=MAX_CONCURRENT_CALLS,
                )
            return self._made

    async def _start_exec(self, path: str, doing: str) -> Connection:
        """Start an exec and take its connection over, as `docker exec` does.

        Done here and not by docker-py, which hands out the socket from under its HTTP client: with
        TLS that cannot be read and written at once, and no transport of it fits asyncio.
        """
        body = b'{"Detach":false,"Tty":false}'
        request = (
            f"POST {path} HTTP/1.1\r\nHost: docker\r\n"
            "Content-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = reader, writer = await self._endpoint.dial()
                writer.write(request.encode() + body)
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                if status in (101, 200):
                    return connection
                raise refused(doing, status, await _message(reader, head))
        except BaseException as exc:
            if connection is not None:
                connection[1].transport.abort()
            if isinstance(exc, (OSError, EOFError, ValueError, IndexError)):
                raise unavailable(self.address, exc) from exc
            raise


def _is_lost_connection(exc: BaseException) -> bool:
    """Whether the same call may succeed on a new connection; not after waiting in vain."""
    return isinstance(exc, requests.exceptions.ConnectionError) and not isinstance(
        exc, requests.exceptions.Timeout
    )


def _is_being_removed(exc: BaseException) -> bool:
    """Whether somebody removes the container already, or its file system is still let go of."""
    return isinstance(exc, docker.errors.APIError) and (
        exc.status_code == 409 or "busy" in str(exc.explanation)
    )


_wait = tenacity.wait_random_exponential(multiplier=0.05, max=0.4)
_again = tenacity.Retrying(
    retry=tenacity.retry_if_exception(_is_lost_connection),
    stop=tenacity.stop_after_attempt(4),
    wait=_wait,
    reraise=True,
)
_until_free = tenacity.Retrying(
    retry=tenacity.retry_if_exception(_is_being_removed),
    stop=tenacity.stop_after_delay(10),
    wait=_wait,
    reraise=True,
)


async def _message(reader: asyncio.StreamReader, head: bytes) -> str:
    """The reason in the answer of an engine that refused."""
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = min(int(value), MAX_ANSWER_BYTES)
    text = (await reader.readexactly(length)).decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text
