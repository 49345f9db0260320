"""A session over the managers of a Jupyter Server, without the server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from jupyter_server_terminals.terminalmanager import TerminalManager

from sandbox.audit import AuditLog
from sandbox.jupyter.serverend import ServerEnd
from sandbox.jupyter.serverfiles import ServerFiles
from sandbox.jupyter.serverkernels import ServerKernels
from sandbox.jupyter.serverterminals import ServerTerminals
from sandbox.jupyter.session import JupyterSession


@dataclass(frozen=True)
class Managed:
    """A session, and the managers under it as other clients of the server use them."""

    session: JupyterSession
    kernels: Any
    contents: Any
    terminals: Any
    root: Path


@pytest.fixture
async def managed(tmp_path: Path) -> AsyncGenerator[Managed]:
    root = tmp_path / "root"
    root.mkdir()
    kernels = AsyncMappingKernelManager(
        root_dir=str(root), connection_dir=str(tmp_path), kernel_spec_manager=KernelSpecManager()
    )
    contents = AsyncLargeFileManager(root_dir=str(root), delete_to_trash=False)
    terminals = TerminalManager(shell_command=["bash", "--norc"])
    audit = AuditLog(tmp_path / "audit", "test")
    session = JupyterSession(audit)
    async with anyio.create_task_group() as tasks:
        end = ServerEnd(
            ServerKernels(kernels, kernels.kernel_spec_manager, tasks.start_soon, session.wake),
            ServerTerminals(terminals, str(root)),
            ServerFiles(contents),
        )
        with anyio.fail_after(60):
            await session.run(end, tasks)
            yield Managed(session, kernels, contents, terminals, root)
            await kernels.shutdown_all(now=True)
            await terminals.terminate_all()
        tasks.cancel_scope.cancel()
    audit.close()
