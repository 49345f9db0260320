"""Scopes: what a token may be used for, and the one table of what needs which."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sandbox.errors import InvalidRequest
from sandbox.toolsets import TOOLSETS, check_toolsets, tools_of

SCOPES = {
    "session": "open sessions under a policy of one's choice, look at, tighten and close them",
    "execute": "run code in kernels",
    "terminal": "run commands and use terminals",
    "files:read": "list and read files",
    "files:write": "write, move and delete files",
    "notebooks": "edit, run and export notebooks",
    "notebooks:read": "follow notebooks as they change, without a hand in them",
    "admin": "see and close the sessions of all principals",
}
"""Every scope and what it lets an application do."""

_TOOLS = {
    "session": (
        "open_session",
        "list_policies",
        "list_sessions",
        "get_session",
        "tighten_session",
        "fork_session",
        "close_session",
        "list_workspaces",
        "delete_workspace",
    ),
    "execute": (
        "execute_code",
        "get_execution",
        "list_executions",
        "list_kernels",
        "start_kernel",
        "interrupt_kernel",
        "restart_kernel",
        "stop_kernel",
        "complete_code",
        "inspect_code",
        *TOOLSETS["branches"],
    ),
    "terminal": (
        "run_command",
        "get_command",
        "stop_command",
        "open_terminal",
        "write_terminal",
        "read_terminal",
        "resize_terminal",
        "close_terminal",
        "list_terminals",
    ),
    "notebooks": TOOLSETS["notebooks"],
    "files:read": ("list_files", "read_file", "stat_file"),
    "files:write": ("write_file", "edit_file", "delete_file", "move_file", "make_directory"),
}
IMPLIED = {"notebooks": frozenset({"notebooks:read"})}
"""What is granted with a scope, without being named."""
ADMIN = "admin"
"""Needed by no tool: by the endpoints for whoever looks after the controller."""
TOOL_SCOPES = {tool: scope for scope, tools in _TOOLS.items() for tool in tools}
"""The scope that each tool needs. The server does not start with a tool that is not here."""

ALSO_NEEDED: dict[str, tuple[str, ...]] = {
    "execute_cell": ("execute_code",),
    "insert_execute_code_cell": ("execute_code",),
    "run_notebook": ("execute_code",),
    "restart_notebook": ("restart_kernel",),
}
"""Tools that do what others do, too: whoever may not use those may not use them, by its token or by
the policy."""

WEBSOCKET_SCOPES: dict[str, str] = {
    "/sessions/{session_id}/terminal": "terminal",
    "/sessions/{session_id}/command": "terminal",
    "/sessions/{session_id}/kernel": "execute",
    "/jupyter/{session_id}/api/kernels/{kernel_id}/channels": "execute",
    "/jupyter/{session_id}/terminals/websocket/{name}": "terminal",
    "/jupyter/{session_id}/api/collaboration/room/{room}": "notebooks:read",
}
"""The scope that each path of WebSockets needs, below the guarded prefix. The server does not start
with one that is not here."""


def scopes_of(tool: str) -> tuple[str, ...]:
    """Every scope that a tool needs; an empty one stands for a tool that nobody may use."""
    named = (tool, *ALSO_NEEDED.get(tool, ()))
    return tuple(dict.fromkeys(TOOL_SCOPES.get(each, "") for each in named))


def check_scopes(wanted: Iterable[str]) -> frozenset[str]:
    """These scopes, when there are such.

    Raises:
        InvalidRequest: There is no such scope, or none is named.
    """
    scopes = frozenset(wanted)
    for scope in sorted(scopes - SCOPES.keys()):
        close = difflib.get_close_matches(scope, SCOPES, n=1)
        raise InvalidRequest(
            f"There is no scope {scope[:80]!r}.",
            remedy=(f"Did you mean {close[0]}? " if close else "") + f"Known: {', '.join(SCOPES)}.",
        )
    if not scopes:
        raise InvalidRequest(
            "A token without a scope may do nothing.", remedy=f"Name some of {', '.join(SCOPES)}."
        )
    return scopes


def check_offer(toolsets: Iterable[str], scopes: frozenset[str]) -> tuple[str, ...]:
    """These toolsets and tools, when a token of these scopes may call any of them.

    Raises:
        InvalidRequest: It may not, or one of them is unknown.
    """
    try:
        words = check_toolsets(toolsets)
    except ValueError as exc:
        raise InvalidRequest(f"The tools of a token: {exc}.") from exc
    needed = {TOOL_SCOPES[tool] for tool in tools_of(words)}
    if scopes.isdisjoint(needed):
        raise InvalidRequest(
            "A token with these scopes may call none of the tools that it offers.",
            remedy=f"They need {' or '.join(sorted(needed))}.",
        )
    return words
