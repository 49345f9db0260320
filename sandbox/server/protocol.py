"""The MCP server: what it says of itself, and its tools."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import MCPServer

from sandbox import __version__
from sandbox.server.desk import Desk
from sandbox.server.tools import all_tools

INSTRUCTIONS = """\
Runs code, commands, terminals and files in isolated containers: one for each session, with no \
network unless its policy grants some. Call execute_code at once: it opens your default session \
and its Python kernel by itself, and variables and files stay for the next call. When a result's \
status is `running`, ask again with get_execution. All times are in seconds, all sizes in bytes, \
all points in time Unix time. Sessions expire; close_session frees them earlier."""


def mcp_server(desk: Desk) -> MCPServer[Any]:
    """The MCP server over a desk's sessions, for any transport."""
    return MCPServer(
        "sandbox",
        title="Sandbox",
        description="Runs code in a container of your own.",
        instructions=INSTRUCTIONS,
        version=__version__,
        tools=all_tools(desk),
        log_level="WARNING",
        subscriptions=False,
    )
