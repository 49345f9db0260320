"""`sandbox serve`: the controller over HTTP, until a signal stops it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn

from sandbox.bulkheads.watchdog import Watchdog, settle
from sandbox.cli import logs
from sandbox.cli.folders import state_dir
from sandbox.cli.hostcheck import promised
from sandbox.cli.remote import announced
from sandbox.cli.token import configuration
from sandbox.cli.verifying import token_verifier
from sandbox.cli.wiring import controller
from sandbox.config import Settings, is_loopback
from sandbox.errors import ConfigError, EngineUnavailable
from sandbox.server.application import make_app
from sandbox.server.auth import security_settings
from sandbox.server.connections import Connections, raise_descriptor_limit
from sandbox.server.desk import Desk
from sandbox.server.grants import LOCAL
from sandbox.server.hosts import Shaping
from sandbox.server.localtoken import server_token
from sandbox.server.oauth import protected_resource
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller

BACKLOG = 1024
"""So many connections may wait in the kernel until they are accepted."""
ACCEPTED_AT_ONCE = 64
"""In one turn of the event loop. Those that make room for others are closed in the next one, so a
whole backlog at once would take all descriptors that there are."""
GRACE_S = 5
"""Seconds that answers under way have to go out when the server stops."""

logger = logging.getLogger("sandbox.serve")


def serve(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM; sessions stay for the next controller.

    Raises:
        SandboxError: It cannot start.
    """
    logs.configure(settings.log_level)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    folder = state_dir(settings)
    token = server_token(settings, folder)
    connections = _connections(settings)
    with _listening(settings) as listener:
        url = _url(settings, listener)
        async with (
            controller(settings, "serve") as manager,
            token_verifier(settings, folder) as (verifier, tokens),
        ):
            desk = Desk(manager, Shaping.of(settings), tokens)
            app = make_app(
                desk,
                verifier=verifier,
                security=security_settings(settings),
                check=lambda: _ready(manager),
                resource=protected_resource(settings),
                max_requests=settings.max_requests_per_principal,
                origins=settings.allowed_origins,
                toolsets=settings.tools,
            )
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                **connections.options(),
                backlog=ACCEPTED_AT_ONCE,
                timeout_graceful_shutdown=GRACE_S,
            )
            with announced(folder, url), Watchdog():
                _greet(url, token, settings)
                await say_what_is_promised(manager, settings)
                settle()
                logger.info("serving at %s/mcp/v1, state in %s", url, folder)
                await _Server(config, desk).serve([listener])
            kept = len(manager.list(Caller(LOCAL)))
        logger.info("stopped; %d open sessions stay for the next controller", kept)


class _Server(uvicorn.Server):
    """A server that lets calls under way answer when it is told to stop."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept. asyncio has one number for what may wait and what it takes at once."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take signals in the event loop; unlike the original, do not raise them again after."""
        loop = asyncio.get_running_loop()
        taken = (signal.SIGINT, signal.SIGTERM)
        for sig in taken:
            loop.add_signal_handler(sig, self.handle_exit, sig, None)
        try:
            yield
        finally:
            for sig in taken:
                loop.remove_signal_handler(sig)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; a second Ctrl-C does not wait for anybody."""
        logger.info("%s: stopping", signal.Signals(sig).name)
        # Streams that clients hold open are cut now, which is meant and no error.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._desk.stop()
        super().handle_exit(sig, frame)


def _connections(settings: Settings) -> Connections:
    """The connections that there may be, so that descriptors are left for everything else."""
    most = min(settings.max_connections, raise_descriptor_limit() // 2)
    return Connections(most, settings.max_connections_per_address or most * 3 // 4)


async def _ready(manager: SessionManager) -> None:
    await manager.runtime.engine()
    if not manager.is_ready:
        raise EngineUnavailable("The sessions of the last controller are being taken over.")


async def say_what_is_promised(manager: SessionManager, settings: Settings) -> None:
    """Log it when the host has less than its sessions may use together."""
    with suppress(EngineUnavailable):  # whoever opens a session is told
        found = promised(await manager.runtime.engine(), settings, manager.policies)
        if found.verdict == "warn":
            logger.warning("%s; %s", found.detail, found.remedy)


@contextmanager
def _listening(settings: Settings) -> Generator[socket.socket]:
    host = settings.host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise _cannot_bind(settings, exc) from exc
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as exc:
            raise _cannot_bind(settings, exc) from exc
        yield listener


def _cannot_bind(settings: Settings, reason: OSError) -> ConfigError:
    return ConfigError(
        f"{settings.host}:{settings.port} cannot be bound: {reason.strerror}.",
        remedy="Choose another with --port, or stop what listens there.",
    )


def _url(settings: Settings, listener: socket.socket) -> str:
    """How clients on this machine reach the listener."""
    port: int = listener.getsockname()[1]
    host = settings.host.strip("[]")
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _greet(url: str, token: str, settings: Settings) -> None:
    """Show each way in and the token, with configuration to paste; on standard error, like the
    log."""
    lines = [
        "",
        f"  MCP      {url}/mcp/v1",
        f"  REST     {url}/mcp/v1/docs        (OpenAPI: {url}/mcp/v1/openapi.json)",
        f"  Jupyter  {url}/jupyter/default/   (for Jupyter's clients; also: sandbox lab)",
        f"  Token    {token}   (again: sandbox token show)",
        "",
        *configuration(f"{url}/mcp/v1", token),
    ]
    if not is_loopback(settings.host):
        lines.insert(
            -1, "  The connection is not encrypted: put a proxy that speaks TLS before it."
        )
    print("\n".join(lines), file=sys.stderr, flush=True)
