"""`sandbox mcp`: the controller over stdin and stdout, for one client."""

from __future__ import annotations

import logging
import os
import signal

import anyio

from sandbox.bulkheads.watchdog import Watchdog, settle
from sandbox.cli import exits, logs
from sandbox.cli.wiring import controller
from sandbox.config import Settings
from sandbox.server.desk import Desk
from sandbox.server.hosts import Shaping
from sandbox.server.mcpserver import mcp_server
from sandbox.sessions.manager import SessionManager

CLOSE_TIMEOUT_S = 20.0

logger = logging.getLogger("sandbox.mcp")


def serve_stdio(settings: Settings, attach: str = "") -> None:
    """Serve until the client closes stdin, or a signal; sessions are closed at the end.

    Args:
        attach: The name under which they are kept for the next start instead; empty: not at all.

    Raises:
        SandboxError: It cannot start.
    """
    logs.configure(settings.log_level)
    anyio.run(_serve, settings, attach)


async def _serve(settings: Settings, attach: str) -> None:
    async with controller(settings, "stdio", attach) as manager:
        desk = Desk(manager, Shaping.of(settings))
        logger.info("serving MCP over stdin and stdout")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_at_signal, manager)
            settle()
            # Within the SDK, standard output carries nothing but the protocol.
            with Watchdog():
                await mcp_server(desk, settings.tools).run_stdio_async()
            tasks.cancel_scope.cancel()
        ending = "keeping" if attach else "closing"
        logger.info("the client has gone; %s its sessions", ending)


async def _end_at_signal(manager: SessionManager) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            logger.info("%s: ending the sessions", signal.Signals(number).name)
            with anyio.move_on_after(CLOSE_TIMEOUT_S):
                await manager.end_all()
            logging.shutdown()
            # A thread still waits in read(2) on stdin, which nothing can end but the client.
            os._exit(exits.INTERRUPTED if number == signal.SIGINT else exits.OK)
