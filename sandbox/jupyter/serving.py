"""What serves the tools in a Jupyter Server, from its start to its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from sandbox.audit import AuditLog
from sandbox.jupyter.access import NEEDS, TERMINALS
from sandbox.jupyter.handlers import Application
from sandbox.jupyter.launching import LaunchTools
from sandbox.jupyter.rooms import rooms_of
from sandbox.jupyter.serverend import ServerEnd
from sandbox.jupyter.serverfiles import ServerFiles
from sandbox.jupyter.serverkernels import ServerKernels
from sandbox.jupyter.serverterminals import ServerTerminals
from sandbox.jupyter.session import JupyterSession
from sandbox.jupyter.sessions import JupyterSessions
from sandbox.server.desk import Desk
from sandbox.server.embedding import embedded
from sandbox.server.hosts import Shaping
from sandbox.sessions.manager import SessionManager
from sandbox.toolsets import tools_of

INTRODUCTION = """\
This is no sandbox: all runs on a person's Jupyter Server, as that person, with that person's \
files and network. Others use the same kernels, files and terminals at the same time. \
Call execute_code at once: variables and files stay for the next call. \
A kernel_id of list_kernels runs code in a kernel of somebody else's; empty or left out it is \
one of your own. After use_notebook the \
tools of notebooks act on that one, or on the one that notebook_name names; a cell is named by \
its index from 0 or by its id, which stays when cells move. Leave session_id out. Paths are from \
the root of the server's files, which an empty one is. What takes longer than `wait` answers \
`running` and goes on. Ask for an execution again with \
get_execution. All times are in seconds, all sizes in bytes, all points in time Unix time."""
PICTURES = Shaping(picture_side=4096, pictures_bytes=2 * 1024 * 1024)
"""Nothing makes pictures smaller here, so larger ones are shown."""


async def serve(
    server: Any, tools: Iterable[str], folder: Path, started: Callable[[Application], None]
) -> None:
    """Serve the tools over the managers of a Jupyter Server, until cancelled.

    Args:
        server: The ``ServerApp``.
        tools: The toolsets and tools that are offered, of those that mean something there.
        folder: Where calls are put on record.
        started: Called with the application when it can be called.
    """
    await anyio.to_thread.run_sync(_make, folder.parent)
    audit = AuditLog(folder, "jupyter")
    try:
        async with anyio.create_task_group() as tasks:
            session = JupyterSession(audit)
            end, rooms = _end(server, session, tasks), rooms_of(server)
            await session.run(end, tasks, server.session_manager, rooms)
            manager = JupyterSessions(session, audit, tasks)
            desk = Desk(cast("SessionManager", manager), PICTURES)
            offered = tools_of(tools) & _there(server)
            more = LaunchTools(desk).tools() if "use_notebook" in offered else ()
            async with embedded(desk, offered, INTRODUCTION, more) as application:
                started(cast("Application", application))
                await anyio.sleep_forever()
    finally:
        audit.close()


def _end(server: Any, session: JupyterSession, tasks: TaskGroup) -> ServerEnd:
    kernels, specs = server.kernel_manager, server.kernel_spec_manager
    terminals = server.web_app.settings.get("terminal_manager")
    return ServerEnd(
        ServerKernels(kernels, specs, tasks.start_soon, session.wake),
        ServerTerminals(terminals, server.root_dir),
        ServerFiles(server.contents_manager),
    )


def _there(server: Any) -> frozenset[str]:
    """The tools that mean something on this server."""
    has_terminals = server.web_app.settings.get("terminal_manager") is not None
    return frozenset(NEEDS) - (frozenset[str]() if has_terminals else TERMINALS)


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


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
