"""Containers on a Docker Engine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeVar

import anyio
import anyio.to_thread
import docker.errors
import requests.exceptions
import tenacity

from sandbox.container.features import REPORTABLE
from sandbox.container.spec import ContainerSpec
from sandbox.errors import ConfigError, Conflict, SessionLost
from sandbox.link.link import ByteStream
from sandbox.runtimes.base import ContainerInfo, ContainerState, ContainerStats, EngineInfo
from sandbox.runtimes.docker.client import Client, make_client
from sandbox.runtimes.docker.disk import disk_below, has_rates
from sandbox.runtimes.docker.endpoint import Endpoint, find_endpoint
from sandbox.runtimes.docker.execstream import ExecStream, start_exec
from sandbox.runtimes.docker.faults import translated
from sandbox.runtimes.docker.translation import (
    create_request,
    enforced,
    info_of,
    listed,
    stats_of,
)
from sandbox.runtimes.hostgroups import held

BRIDGE = ["/usr/bin/python3", "-I", "-S", "/opt/sandbox/bridge.py"]
MAX_CONCURRENT_CALLS = 16
DEFAULT_TIMEOUT_S = 30.0

T = TypeVar("T")


class DockerRuntime:
    """The runtime contract on a Docker Engine; made by :meth:`connect_engine`.

    docker-py blocks, so every call of it runs in a thread; the streams of containers do not.

    Args:
        timeout_s: For connecting, and between two bytes of an answer.
        apparmor: The AppArmor profile that containers must have; empty for the engine's own.
        disk: The block device that rates are for; empty for the one that is found.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        apparmor: str = "",
        disk: str = "",
    ) -> None:
        self._apparmor = apparmor
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._disk = disk
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
        apparmor: str = "",
        environ: Mapping[str, str] | None = None,
        disk: str = "",
    ) -> DockerRuntime:
        """A runtime for the engine that is meant, in this order: ``host``, ``context``,
        ``DOCKER_HOST``, ``DOCKER_CONTEXT``, the current Docker context, the local socket.

        Nothing is sent yet: an engine that is down is noticed by the first call, and found again
        by the first call after it is back.

        Raises:
            ConfigError: The address, the context or the certificates cannot be used.
        """
        found = find_endpoint(host, context, os.environ if environ is None else environ)
        return cls(found, timeout_s=timeout_s, apparmor=apparmor, disk=disk)

    @property
    def address(self) -> str:
        """The engine's address."""
        return self._endpoint.url

    async def engine(self) -> EngineInfo:
        """What the engine is.

        Raises:
            ConfigError: Containers must have an AppArmor profile, and the engine has no AppArmor.
        """

        def ask(client: Client) -> EngineInfo:
            told, version = client.info(), client.version()
            options: list[str] = told.get("SecurityOptions") or []
            return EngineInfo(
                name=str(told.get("Name", "")),
                version=str(version.get("Version", "")),
                api_version=str(version.get("ApiVersion", "")),
                cgroup_version=int(told.get("CgroupVersion") or 1),
                runtimes=tuple(sorted(told.get("Runtimes") or ())),
                seccomp=any("seccomp" in option for option in options),
                architecture=str(told.get("Architecture", "")),
                memory_bytes=int(told.get("MemTotal") or 0),
                cpus=int(told.get("NCPU") or 0),
                data_root=str(told.get("DockerRootDir") or ""),
                has_apparmor=any("apparmor" in option for option in options),
                apparmor=self._apparmor,
                disk=self._disk_of(told),
                enforces=enforced(told, str(version.get("ApiVersion", ""))),
                reports=REPORTABLE,
            )

        info = await self._call("say what it is", ask, idempotent=True)
        if info.apparmor and not info.has_apparmor:
            raise ConfigError(
                f"The setting apparmor names the profile {info.apparmor!r}, and the engine has no "
                "AppArmor, so no container would have it.",
                remedy="Leave the setting out, or use an engine whose kernel has AppArmor.",
            )
        return info

    def _disk_of(self, told: Mapping[str, Any]) -> str:
        """The disk that rates are for: the one that was named, else the one that is found."""
        if not has_rates(told.get("Warnings") or ()):
            return ""
        return self._disk or disk_below(str(told.get("DockerRootDir")), str(told.get("Name")))

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

    async def pause(self, container_id: str) -> None:
        """Stop every process of the container where it is; harmless when that is so already."""
        await self._set_state("pause", "paused", container_id)

    async def unpause(self, container_id: str) -> None:
        """Let every process of the container go on; harmless when they do."""
        await self._set_state("unpause", "running", container_id)

    async def _set_state(
        self, verb: Literal["pause", "unpause"], wanted: ContainerState, container_id: str
    ) -> None:
        def act(client: Client) -> None:
            try:
                _until_still(client.pause if verb == "pause" else client.unpause, container_id)
            except docker.errors.NotFound:
                raise
            except docker.errors.APIError:  # also where it is so already
                found = info_of(client.inspect_container(container_id)).state
                if found == wanted:
                    return
                if found not in ("running", "paused"):
                    raise SessionLost(f"The container {container_id:.12} does not run.") from None
                raise

        await self._call(f"{verb} the container {container_id:.12}", act, idempotent=True)

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
            reader, writer = await start_exec(self._endpoint, path, doing, self._timeout_s)
        except Conflict as exc:  # the engine's word for a container that does not run, or is paused
            if (await self.inspect(container_id)).state == "paused":
                raise
            raise SessionLost(exc.message) from exc
        return ExecStream(reader, writer, f"the bridge of {container_id:.12}")

    async def inspect(self, container_id: str) -> ContainerInfo:
        """The container with its facts; ``state`` is ``missing`` when there is none."""

        def ask(client: Client) -> ContainerInfo:
            try:
                told = client.inspect_container(container_id)
                limits = held(told["State"].get("Pid") or 0, told["Id"])
                return replace(info_of(told), held=limits)
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


def _is_not_still(exc: BaseException) -> bool:
    """Whether the runtime gave up on stopping a container in which a process was just beginning."""
    return isinstance(exc, docker.errors.APIError) and "unable to freeze" in str(exc.explanation)


_wait = tenacity.wait_random_exponential(multiplier=0.05, max=0.4)
_again = tenacity.Retrying(
    retry=tenacity.retry_if_exception(_is_lost_connection),
    stop=tenacity.stop_after_attempt(4),
    wait=_wait,
    reraise=True,
)
_until_still = tenacity.Retrying(
    retry=tenacity.retry_if_exception(_is_not_still),
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
