"""Where the engine is, and connections to it.

The engine may be a local socket, a plain or TLS address, or a machine behind ssh. Nothing of ours
is shared with its host, so all of these work alike: requests go through docker-py, and the
long-lived streams are connections opened here.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from socket import AF_UNIX, socket, socketpair
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

import docker.context
import docker.errors
import docker.utils

from sandbox.errors import ConfigError

LOCAL_SOCKET = "unix:///var/run/docker.sock"
READ_SIZE = 256 * 1024
SSH_CONNECT_TIMEOUT_S = 15
_SCHEMES = ("unix", "tcp", "ssh")

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a TLS connection; ``verify`` says whether the engine must prove who it is."""

    ca: str
    certificate: str
    key: str
    verify: bool

    def context(self) -> ssl.SSLContext:
        """What Python's TLS needs."""
        context = ssl.create_default_context(cafile=self.ca or None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key)
        return context


class Endpoint:
    """An engine's address, and how to open connections to it.

    Args:
        url: ``unix:///path``, ``tcp://host:port`` or ``ssh://[user@]host[:port]``.

    Raises:
        ConfigError: The address cannot be used.
    """

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        self.url = url
        self.tls = tls
        self._parts = _parse(url)
        self._children: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    @property
    def scheme(self) -> str:
        """``unix``, ``tcp`` or ``ssh``."""
        return self._parts.scheme

    async def dial(self) -> Connection:
        """Open a connection of its own to the engine.

        Raises:
            OSError: It cannot be reached.
        """
        parts = self._parts
        if parts.scheme == "unix":
            return await asyncio.open_unix_connection(parts.path, limit=READ_SIZE)
        if parts.scheme == "ssh":
            return await asyncio.open_connection(sock=self._dial_ssh(), limit=READ_SIZE)
        context = self.tls.context() if self.tls else None
        return await asyncio.open_connection(
            parts.hostname, parts.port, limit=READ_SIZE, ssl=context
        )

    def dial_socket(self, timeout_s: float) -> socket:
        """Open a connection to a ``unix`` or ``ssh`` endpoint; blocks.

        Raises:
            OSError: It cannot be reached.
        """
        if self.scheme == "ssh":
            return self._dial_ssh()
        opened = socket(AF_UNIX)
        try:
            opened.settimeout(timeout_s)
            opened.connect(self._parts.path)
        except OSError:
            opened.close()
            raise
        return opened

    def _dial_ssh(self) -> socket:
        """A connection through ssh, as the Docker command line makes it: one process for each.

        The process has one end of a socket pair as its input and output, so nothing is pumped here.
        """
        parts = self._parts
        command = ["ssh", "-T", "-o", "BatchMode=yes"]
        command += ["-o", f"ConnectTimeout={SSH_CONNECT_TIMEOUT_S}"]
        command += ["-l", parts.username] if parts.username else []
        command += ["-p", str(parts.port)] if parts.port else []
        command += ["--", parts.hostname or "", "docker", "system", "dial-stdio"]
        ours, theirs = socketpair()
        with theirs:
            try:
                # A session of its own: a ctrl-c meant for us must not cut the engine off.
                child = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        with self._lock:
            self._children = [known for known in self._children if known.poll() is None]
            self._children.append(child)
        return ours

    def close(self) -> None:
        """End what is left of the ssh connections; blocks until they have ended."""
        with self._lock:
            children, self._children = self._children, []
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def find_endpoint(host: str, context: str, environ: Mapping[str, str]) -> Endpoint:
    """Find the engine as the Docker command line does.

    Args:
        host: An explicit address; wins over everything.

    Raises:
        ConfigError: The context does not exist, or the address or its certificates cannot be used.
    """
    try:
        if context and not host:
            return _from_context(context)
        if host or environ.get("DOCKER_HOST"):
            wanted = {**environ, "DOCKER_HOST": host or environ["DOCKER_HOST"]}
            # Typed here: docker-py carries no types.
            found = cast(Any, docker.utils).kwargs_from_env(wanted)
            return Endpoint(wanted["DOCKER_HOST"], _tls(found.get("tls")))
        return _from_context(environ.get("DOCKER_CONTEXT", ""))
    except docker.errors.DockerException as exc:
        raise ConfigError(f"The engine's address cannot be used: {exc}") from exc


def _from_context(name: str) -> Endpoint:
    found = cast(Any, docker.context.ContextAPI).get_context(name or None)
    if found is None:
        raise ConfigError(
            f"There is no Docker context {name or 'of the name that is current'!r}.",
            remedy="`docker context ls` shows those that exist.",
        )
    if found.name == "default":
        return Endpoint(LOCAL_SOCKET)
    return Endpoint(str(found.Host), _tls(found.TLSConfig))


def _tls(config: Any) -> Tls | None:
    if not config:
        return None
    certificate, key = config.cert or ("", "")
    return Tls(config.ca_cert or "", certificate, key, bool(config.verify))


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in _SCHEMES
        usable = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname)
        has_port = parts.port is not None  # raises for one that is no port, whatever the scheme
        usable = usable and (has_port or parts.scheme != "tcp")
    except ValueError:
        known = usable = False
    else:
        if known and usable and not parts.password:
            return parts
    raise ConfigError(
        f"{url!r} is not an engine's address.",
        remedy="Write unix:///path, tcp://host:port or ssh://user@host.",
    )
