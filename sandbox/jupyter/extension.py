"""The extension of Jupyter Server: ``jupyter server extension enable sandbox``.

It serves MCP at ``/mcp/v1`` of that server, to whom the server's identity provider and authorizer
let in, over the server's own kernels, files, terminals and notebooks. None of that is a sandbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
from jupyter_server.extension.application import ExtensionApp
from mcp.server.transport_security import TransportSecuritySettings
from tornado.web import HTTPError
from traitlets import List, Unicode

from sandbox.audit import AuditLog
from sandbox.jupyter.access import NEEDS, TERMINALS
from sandbox.jupyter.handlers import Application, McpHandler
from sandbox.jupyter.serverend import ServerEnd, starter
from sandbox.jupyter.serverfiles import ServerFiles
from sandbox.jupyter.serverkernels import ServerKernels
from sandbox.jupyter.serverterminals import ServerTerminals
from sandbox.jupyter.session import JupyterSession
from sandbox.jupyter.sessions import JupyterSessions
from sandbox.server.auth import GUARDED
from sandbox.server.desk import Desk
from sandbox.server.handshakes import Handshakes
from sandbox.server.hosts import Shaping
from sandbox.server.intake import MAX_MCP_BODY, Intake
from sandbox.server.mcpserver import mcp_server
from sandbox.server.replays import RETRY_MS, Replays
from sandbox.sessions.manager import SessionManager
from sandbox.toolsets import ALL, check_toolsets, tools_of

INTRODUCTION = """\
This is no sandbox: all runs on a person's Jupyter Server, as that person, with that person's \
files and network. Others use the same kernels, files and terminals at the same time. \
Call execute_code at once: variables and files stay for the next call. \
A kernel_id of list_kernels runs code in a kernel of somebody else's. Leave session_id out. Paths \
are from the root of the server's files. What answers `running` goes on. Ask for an execution \
again with get_execution. All times are in seconds, all sizes in bytes, all points in time Unix \
time."""
PICTURES = Shaping(picture_side=4096, pictures_bytes=2 * 1024 * 1024)
"""Nothing makes pictures smaller here, so larger ones are shown."""
MAX_REQUESTS = 256
START_S = 30.0

logger = logging.getLogger(__name__)


class SandboxExtension(ExtensionApp):
    """Serves the tools over MCP at ``/mcp/v1`` of a Jupyter Server."""

    name = "sandbox"
    description = "Serves kernels, files, terminals and notebooks to agents, over MCP at /mcp/v1."
    load_other_extensions = True

    tools = List(
        Unicode(),
        default_value=[ALL],
        help="The toolsets and tools that are offered, as the setting `tools` of sandbox.",
    ).tag(config=True)
    audit_folder = Unicode(
        help="Where calls are put on record; below Jupyter's data folder when empty."
    ).tag(config=True)

    def initialize_handlers(self) -> None:
        """Jupyter Server: add what is served."""
        self._application: Application | None = None
        self._is_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        check_toolsets(self.tools)
        self.handlers.append((GUARDED, McpHandler, {"find_application": self._found}))

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Jupyter Server: its event loop runs."""
        self._begin()

    async def stop_extension(self) -> None:
        """Jupyter Server: it stops."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=5)

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._live())

    async def _found(self) -> Application:
        """The application, when it is up."""
        self._begin()  # where the server has started nothing, as in its own tests
        async with asyncio.timeout(START_S):
            await self._is_up.wait()
        if self._application is None:
            raise HTTPError(503, "The extension sandbox is not up; the server's log says why.")
        return self._application

    async def _live(self) -> None:
        try:
            with said_by(self.log):
                await self._serve()
        except Exception:  # the outermost edge: the server goes on without us
            logger.exception("the extension sandbox failed")
        finally:
            self._application = None
            self._is_up.set()

    async def _serve(self) -> None:
        server: Any = self.serverapp
        folder = self._audit_folder(server)
        await anyio.to_thread.run_sync(_make, folder.parent)
        audit = AuditLog(folder, "jupyter")
        try:
            async with anyio.create_task_group() as tasks:
                session = JupyterSession(audit)
                await session.run(self._end(server, session, tasks), tasks)
                manager = JupyterSessions(session, audit, tasks)
                desk = Desk(cast("SessionManager", manager), PICTURES)
                mcp = mcp_server(desk, self._offered(server), INTRODUCTION)
                replays = Replays()
                app = mcp.streamable_http_app(
                    streamable_http_path=GUARDED,
                    event_store=replays,
                    retry_interval=RETRY_MS,
                    max_request_body_size=MAX_MCP_BODY,
                    # Jupyter Server has looked at Host and Origin.
                    transport_security=TransportSecuritySettings(
                        enable_dns_rebinding_protection=False
                    ),
                )
                bounded = Intake(Handshakes(app, manager.conversations, replays), MAX_REQUESTS)
                async with mcp.session_manager.run():
                    self._application = cast("Application", bounded)
                    self._is_up.set()
                    try:
                        await anyio.sleep_forever()
                    finally:
                        desk.stop()
                        self._application = None
        finally:
            audit.close()

    def _end(self, server: Any, session: JupyterSession, tasks: Any) -> ServerEnd:
        kernels = ServerKernels(
            server.kernel_manager, server.kernel_spec_manager, starter(tasks), session.wake
        )
        terminals = ServerTerminals(
            server.web_app.settings.get("terminal_manager"), server.root_dir
        )
        return ServerEnd(kernels, terminals, ServerFiles(server.contents_manager))

    def _offered(self, server: Any) -> frozenset[str]:
        """The tools that there are, of those that are wanted."""
        has_terminals = server.web_app.settings.get("terminal_manager") is not None
        there = NEEDS.keys() - (frozenset() if has_terminals else TERMINALS)
        return tools_of(self.tools) & there

    def _audit_folder(self, server: Any) -> Path:
        if self.audit_folder:
            return Path(str(self.audit_folder))
        return Path(server.data_dir) / "sandbox" / "audit" / f"port-{server.port}"


@contextmanager
def said_by(log: Any) -> Generator[None]:
    """Have what our modules log come out where the server's own log does, and not in the root
    logger, which the MCP server would set up for itself."""
    ours, root, nothing = logging.getLogger("sandbox"), logging.getLogger(), logging.NullHandler()
    handlers = tuple(log.handlers)
    ours.propagate = False
    root.addHandler(nothing)
    for handler in handlers:
        ours.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(nothing)
        for handler in handlers:
            ours.removeHandler(handler)
        ours.propagate = True


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
