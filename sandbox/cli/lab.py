"""`sandbox lab`: one's own JupyterLab with a session, until Ctrl-C."""

from __future__ import annotations

import re
import sys
import webbrowser
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute, SocketStream

from sandbox.cli import exits, logs
from sandbox.cli.labproxy import LabProxy, Upstream
from sandbox.cli.labserver import find_lab, lab_pages
from sandbox.cli.restclient import RestClient
from sandbox.cli.signals import ended_by_signals
from sandbox.cli.targets import ControllerTarget, resolved
from sandbox.config import Settings
from sandbox.errorgroups import one_error
from sandbox.errors import ConfigError

_SHARED = re.compile(r"(.*)/jupyter/([^/]+)/(?:lab/tree|notebooks)/(.+)")


@dataclass(frozen=True, slots=True)
class LabWork:
    """What a person wants of the command."""

    session: str
    """A session's id or name, or the address of a shared notebook; ``-`` when stdin says it."""
    path: str = ""
    port: int = 0
    jupyter: Path | None = None
    opens_browser: bool = False


@dataclass(frozen=True, slots=True)
class _Connecting:
    client: RestClient

    async def __call__(self) -> ByteStream:
        parts, tls = urlsplit(self.client.url), self.client.tls
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
        if tls is None:
            return await anyio.connect_tcp(host, port)
        return await anyio.connect_tcp(host, port, ssl_context=tls, tls_standard_compatible=False)


def run_lab(settings: Settings, target: ControllerTarget, work: LabWork) -> int:
    """Serve one's own JupyterLab with a session until a signal ends it, and return the exit code.

    Raises:
        SandboxError: There is no such session, or no JupyterLab.
    """
    logs.configure(settings.log_level)
    if work.session == "-":
        work = replace(work, session=sys.stdin.readline().strip())
    return anyio.run(_run, settings, target, work)


async def _run(settings: Settings, target: ControllerTarget, work: LabWork) -> int:
    program = find_lab(work.jupyter)
    async with (
        ended_by_signals(),
        _session(settings, target, work) as (session, path, is_guest),
        lab_pages(program, for_guest=is_guest) as pages,
        await _listener(work.port) as listener,
        one_error() as tasks,
    ):
        port: int = listener.extra(SocketAttribute.local_port)  # noqa: S610  # this is no Django
        proxy = LabProxy(pages, session, port)
        address = proxy.address(f"/lab/tree/{quote(path)}" if path else "/lab")
        print(f"\n  JupyterLab  {address}\n", file=sys.stderr, flush=True)
        if work.opens_browser:
            await anyio.to_thread.run_sync(webbrowser.open, address)
        await listener.serve(proxy.serve, tasks)
    return exits.OK


async def _listener(port: int) -> Listener[SocketStream]:
    try:
        found = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    except OSError as exc:
        raise ConfigError(
            f"Port {port} cannot be bound: {exc.strerror}.",
            remedy="Choose another with --port.",
        ) from exc
    return found.listeners[0]


@asynccontextmanager
async def _session(
    settings: Settings, target: ControllerTarget, work: LabWork
) -> AsyncGenerator[tuple[Upstream, str, bool]]:
    """The session's Jupyter Server, the notebook to show first, and whether there is no more."""
    parts = urlsplit(work.session)
    shared = _SHARED.fullmatch(parts.path) if parts.scheme in ("http", "https") else None
    if shared is not None:
        base, session_id, path = shared.groups()
        token = parse_qs(parts.query).get("token", [""])[0]
        client = RestClient(f"{parts.scheme}://{parts.netloc}{base}", token)
        yield _upstream(client, unquote(session_id)), unquote(path), True
        return
    async with target.client(settings) as client:
        found = (await client.call("GET", "sessions"))["sessions"]
        yield _upstream(client, resolved(work.session, found, client.url)), work.path, False


def _upstream(client: RestClient, session_id: str) -> Upstream:
    parts = urlsplit(client.url)
    return Upstream(
        _Connecting(client),
        parts.netloc.rpartition("@")[2],
        f"Bearer {client.token}",
        f"{parts.path}/jupyter/{quote(session_id, safe='')}",
    )
