"""`sandbox serve`: the controller over HTTP, until a signal stops it."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import anyio
import uvicorn

from sandbox.cli import logs
from sandbox.cli.address import announced
from sandbox.cli.wiring import controller, state_dir, token_verifier
from sandbox.config import Settings, is_loopback
from sandbox.errors import ConfigError, EngineUnavailable
from sandbox.server.app import make_app
from sandbox.server.auth import security_settings
from sandbox.server.desk import Desk
from sandbox.server.grants import LOCAL
from sandbox.server.oauth import protected_resource
from sandbox.server.tokens import server_token
from sandbox.sessions import Caller, SessionManager

BACKLOG = 1024
GRACE_S = 5
"""Seconds that answers under way have to go out when the server stops."""

logger = logging.getLogger("sandbox.serve")


def serve(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM; sessions stay for the next controller.

    Raises:
        SandboxError: It cannot start.
    """
    logs.configure(settings.log_level)
    anyio.run(_serve, settings)


async def _serve(settings: Settings) -> None:
    folder = state_dir(settings)
    token = server_token(settings, folder)
    with _listening(settings) as listener:
        url = _url(settings, listener)
        async with (
            controller(settings, "serve") as manager,
            token_verifier(settings, folder) as verifier,
        ):
            desk = Desk(manager)
            app = make_app(
                desk,
                verifier=verifier,
                security=security_settings(settings),
                check=lambda: _ready(manager),
                resource=protected_resource(settings),
            )
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http="h11",  # bounds what is read before a token is: docs/adr/0006
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=GRACE_S,
            )
            with announced(folder, url):
                _greet(url, token, settings)
                logger.info("serving at %s/mcp/v1, state in %s", url, folder)
                await _Server(config, desk).serve([listener])
            kept = len(manager.list(Caller(LOCAL)))
        logger.info("stopped; %d open sessions stay for the next controller", kept)


class _Server(uvicorn.Server):
    """A server that lets calls under way answer when it is told to stop."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

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


async def _ready(manager: SessionManager) -> None:
    await manager.runtime.engine()
    if not manager.is_ready:
        raise EngineUnavailable("The sessions of the last controller are being taken over.")


@contextmanager
def _listening(settings: Settings) -> Generator[socket.socket]:
    host = settings.host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as exc:
        raise ConfigError(
            f"{settings.host}:{settings.port} cannot be bound: {exc.strerror}.",
            remedy="Choose another with --port, or stop what listens there.",
        ) from exc
    with listener:
        yield listener


def _url(settings: Settings, listener: socket.socket) -> str:
    """How clients on this machine reach the listener."""
    port: int = listener.getsockname()[1]
    host = settings.host.strip("[]")
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _greet(url: str, token: str, settings: Settings) -> None:
    """Show the token with configuration to paste; on standard error, like the log."""
    headers = {"Authorization": f"Bearer {token}"}
    servers = {"sandbox": {"type": "http", "url": f"{url}/mcp/v1", "headers": headers}}
    lines = [
        "",
        f"  MCP    {url}/mcp/v1",
        f"  REST   {url}/mcp/v1/sessions",
        f"  Token  {token}",
        "",
        "  Claude Code:",
        f"    claude mcp add --transport http sandbox {url}/mcp/v1 "
        f"--header 'Authorization: Bearer {token}'",
        "  VS Code (.vscode/mcp.json):",
        f"    {json.dumps({'servers': servers})}",
        "",
    ]
    if not is_loopback(settings.host):
        lines.insert(
            -1, "  The connection is not encrypted: put a proxy that speaks TLS before it."
        )
    print("\n".join(lines), file=sys.stderr, flush=True)
