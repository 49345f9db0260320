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
from sandbox.server.grants import LOCAL
from sandbox.server.hosts import Shaping
from sandbox.server.mcpserver import mcp_server
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller

CLOSE_TIMEOUT_S = 20.0

logger = logging.getLogger("sandbox.mcp")


def serve_stdio(settings: Settings) -> None:
    """Serve until the client closes stdin, or a signal; sessions are closed at the end.

    Raises:
        SandboxError: It cannot start.
    """
    logs.configure(settings.log_level)
    anyio.run(_serve, settings)


async def _serve(settings: Settings) -> None:
    async with controller(settings, "stdio") as manager:
        desk = Desk(manager, Shaping.of(settings))
        logger.info("serving MCP over stdin and stdout")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_at_signal, manager)
            settle()
            # Within the SDK, standard output carries nothing but the protocol.
            with Watchdog():
                await mcp_server(desk, settings.tools).run_stdio_async()
            tasks.cancel_scope.cancel()
        logger.info("the client has gone; closing its sessions")


async def _end_at_signal(manager: SessionManager) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            logger.info("%s: closing the sessions", signal.Signals(number).name)
            with anyio.move_on_after(CLOSE_TIMEOUT_S):
                await _close_all(manager)
            logging.shutdown()
            # A thread still waits in read(2) on stdin, which nothing can end but the client.
            os._exit(exits.INTERRUPTED if number == signal.SIGINT else exits.OK)


async def _close_all(manager: SessionManager) -> None:
    caller = Caller(LOCAL)
    async with anyio.create_task_group() as closing:
        for info in manager.list(caller):
            closing.start_soon(manager.close, caller, info.session_id)
