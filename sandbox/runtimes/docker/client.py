"""A docker-py client for an endpoint, in the few words that are used here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import docker
import docker.tls
import requests.adapters
import urllib3
import urllib3.connection

from sandbox.runtimes.docker.endpoint import Endpoint

# The API of Docker Engine 20.10, the oldest one supported; only used to ask for the newest.
OLDEST_API = "1.41"


class Client(Protocol):
    """The part of ``docker.APIClient`` that is used; docker-py itself carries no types."""

    def version(self, *, api_version: bool = True) -> dict[str, Any]: ...
    def info(self) -> dict[str, Any]: ...
    def inspect_image(self, image: str) -> dict[str, Any]: ...
    def create_container_from_config(
        self, config: Mapping[str, Any], name: str
    ) -> dict[str, Any]: ...
    def start(self, container: str) -> None: ...
    def pause(self, container: str) -> None: ...
    def unpause(self, container: str) -> None: ...
    def exec_create(
        self, container: str, cmd: list[str], *, stdin: bool, tty: bool
    ) -> dict[str, Any]: ...
    def inspect_container(self, container: str) -> dict[str, Any]: ...
    def containers(self, *, all: bool, filters: Mapping[str, Any]) -> list[dict[str, Any]]: ...
    def remove_container(self, container: str, *, force: bool, v: bool) -> None: ...
    def stats(self, container: str, *, stream: bool, one_shot: bool) -> dict[str, Any]: ...
    def close(self) -> None: ...


def make_client(endpoint: Endpoint, *, timeout_s: float, connections: int) -> tuple[Client, str]:
    """Make a client for the engine's own API version and return both; asks it, so this blocks.

    Args:
        timeout_s: For connecting, and between two bytes of an answer.
    """
    client = _client(endpoint, OLDEST_API, timeout_s, connections)
    version = str(client.version(api_version=False)["ApiVersion"])
    client.close()
    return _client(endpoint, version, timeout_s, connections), version


def _client(endpoint: Endpoint, version: str, timeout_s: float, connections: int) -> Client:
    tls: Any = False
    if endpoint.tls:
        files = endpoint.tls
        pair = (files.certificate, files.key) if files.certificate else None
        tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=files.ca, verify=files.verify)
    # docker-py speaks ssh only with paramiko, and leaves a socket open that could not connect. So
    # for both it is told of some socket, and given our own transport.
    is_tcp = endpoint.scheme == "tcp"
    url = endpoint.url if is_tcp else "unix:///our-own"
    make = cast(Any, docker.APIClient)
    client = make(
        base_url=url, version=version, timeout=timeout_s, tls=tls, max_pool_size=connections
    )
    # Engines are reached directly: no proxy and no credentials from the environment.
    client.trust_env = False
    if not is_tcp:
        client.mount("http+docker://", _SocketAdapter(endpoint, timeout_s, connections))
    return cast(Client, client)


class _SocketConnection(urllib3.connection.HTTPConnection):
    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        super().__init__("localhost")
        self._endpoint = endpoint
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = self._endpoint.dial_socket(self._timeout_s)
        # The time-out of a request is set on the socket by urllib3, once it is there.


class _SocketPool(urllib3.HTTPConnectionPool):
    def __init__(self, endpoint: Endpoint, timeout_s: float, connections: int) -> None:
        super().__init__("localhost", maxsize=connections)
        self._endpoint = endpoint
        self._timeout_s = timeout_s

    def _new_conn(self) -> Any:
        return _SocketConnection(self._endpoint, self._timeout_s)


class _SocketAdapter(requests.adapters.HTTPAdapter):
    """Sends requests through ``Endpoint.dial_socket``."""

    def __init__(self, endpoint: Endpoint, timeout_s: float, connections: int) -> None:
        super().__init__()
        self._pool = _SocketPool(endpoint, timeout_s, connections)

    def get_connection_with_tls_context(self, *_args: Any, **_kwargs: Any) -> _SocketPool:
        """The one pool there is."""
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: object) -> str:
        """The path alone: there is no host in a request through a socket."""
        return request.path_url

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self._pool.close()
