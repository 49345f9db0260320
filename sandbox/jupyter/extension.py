"""The extension of Jupyter Server: ``jupyter server extension enable sandbox``.

It serves MCP at ``/mcp/v1`` of that server, to whom the server's identity provider and authorizer
let in, over the server's own kernels, files, terminals and notebooks. None of that is a sandbox.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from tornado.web import HTTPError
from traitlets import List, Unicode

from sandbox.jupyter.handlers import Application, McpHandler
from sandbox.jupyter.serving import said_by, serve
from sandbox.server.auth import GUARDED
from sandbox.toolsets import ALL, check_toolsets

START_S = 30.0
STOP_S = 5.0


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
            await asyncio.wait((self._task,), timeout=STOP_S)

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._live())

    async def _found(self) -> Application:
        """The application, when it is up.

        Raises:
            HTTPError: It could not be started.
        """
        self._begin()  # where a server loads extensions and starts none
        async with asyncio.timeout(START_S):
            await self._is_up.wait()
        if self._application is None:
            raise HTTPError(503, "The extension sandbox is not up; the server's log says why.")
        return self._application

    async def _live(self) -> None:
        try:
            with said_by(self.log):
                await serve(self.serverapp, self.tools, self._folder(), self._started)
        except Exception:  # the outermost edge: the server goes on without us
            self.log.exception("the extension sandbox failed")
        finally:
            self._application = None
            self._is_up.set()

    def _started(self, application: Application) -> None:
        self._application = application
        self._is_up.set()

    def _folder(self) -> Path:
        if self.audit_folder:
            return Path(str(self.audit_folder))
        server: Any = self.serverapp
        return Path(server.data_dir) / "sandbox" / "audit" / f"port-{server.port}"
