"""Which tools there are, in the order in which they are listed."""

from __future__ import annotations

from mcp.server.mcpserver.tools import Tool

from sandbox.server.desk import Desk
from sandbox.server.tools.branches import BranchTools
from sandbox.server.tools.cells import CellTools
from sandbox.server.tools.commands import CommandTools
from sandbox.server.tools.executions import ExecutionTools
from sandbox.server.tools.files import FileTools
from sandbox.server.tools.history import HistoryTools
from sandbox.server.tools.kernels import KernelTools
from sandbox.server.tools.notebookruns import CellRunTools
from sandbox.server.tools.notebooks import NotebookTools
from sandbox.server.tools.policies import PolicyTools
from sandbox.server.tools.sessions import SessionTools
from sandbox.server.tools.terminals import TerminalTools
from sandbox.server.tools.workspaces import WorkspaceTools

GROUPS = (
    SessionTools,
    PolicyTools,
    WorkspaceTools,
    ExecutionTools,
    HistoryTools,
    KernelTools,
    BranchTools,
    CommandTools,
    TerminalTools,
    FileTools,
    NotebookTools,
    CellTools,
    CellRunTools,
)


def all_tools(desk: Desk) -> list[Tool]:
    """Every tool, in order."""
    return [tool for group in GROUPS for tool in group(desk).tools()]
