"""Toolsets: names for the tools that belong together, of which a server or a token offers some.

Every tool of the definitions costs a model its tokens, whether it is called or not. A word is the
name of a toolset or of one tool.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

ALL = "all"
"""Every tool, also those that come later."""

TOOLSETS: dict[str, tuple[str, ...]] = {
    "code": ("execute_code", "get_execution", "interrupt_kernel", "restart_kernel"),
    "kernels": (
        "list_executions",
        "list_kernels",
        "start_kernel",
        "interrupt_kernel",
        "restart_kernel",
        "stop_kernel",
        "complete_code",
        "inspect_code",
    ),
    "branches": (
        "branch_kernel",
        "checkpoint_kernel",
        "rollback_kernel",
        "list_checkpoints",
        "drop_checkpoint",
    ),
    "commands": ("run_command", "get_command", "stop_command"),
    "terminals": (
        "open_terminal",
        "write_terminal",
        "read_terminal",
        "resize_terminal",
        "close_terminal",
        "list_terminals",
    ),
    "files": (
        "list_files",
        "read_file",
        "write_file",
        "edit_file",
        "delete_file",
        "move_file",
        "make_directory",
        "stat_file",
    ),
    "notebooks": (
        "use_notebook",
        "list_notebooks",
        "read_notebook",
        "restart_notebook",
        "unuse_notebook",
        "run_notebook",
        "insert_cell",
        "overwrite_cell_source",
        "edit_cell_source",
        "move_cell",
        "delete_cell",
        "clear_cell_output",
        "read_cell",
        "execute_cell",
        "insert_execute_code_cell",
        "export_session",
    ),
    "sessions": (
        "open_session",
        "list_sessions",
        "get_session",
        "tighten_session",
        "fork_session",
        "close_session",
        "list_policies",
        "list_workspaces",
        "delete_workspace",
    ),
}
"""Each toolset and its tools. The server does not start with a tool that is in none."""

TOOLS = frozenset(tool for tools in TOOLSETS.values() for tool in tools)


def tools_of(words: Iterable[str] | None) -> frozenset[str]:
    """The tools that words stand for; all when None. A word that is none stands for nothing."""
    if words is None:
        return TOOLS
    named = [TOOLS if word == ALL else TOOLSETS.get(word, (word,)) for word in words]
    return TOOLS & {tool for tools in named for tool in tools}


def check_toolsets(words: Iterable[str]) -> tuple[str, ...]:
    """These words, each once, when they name toolsets or tools.

    Raises:
        ValueError: One does not, or there is none.
    """
    wanted = tuple(dict.fromkeys(words))
    for word in wanted:
        if word not in (ALL, *TOOLSETS, *TOOLS):
            close = difflib.get_close_matches(word, (ALL, *TOOLSETS, *TOOLS), n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ValueError(
                f"there is no toolset {word[:80]!r}; {hint}known: {ALL}, {', '.join(TOOLSETS)}, "
                "or the names of tools"
            )
    if not wanted:
        raise ValueError(f"name at least one toolset: {ALL}, {', '.join(TOOLSETS)}")
    return wanted
