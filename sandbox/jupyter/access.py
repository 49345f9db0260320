"""Who may use which tool on a Jupyter Server: that server's identity provider and authorizer say.

Each tool needs what Jupyter Server's own endpoints for the same thing need, asked of the authorizer
as action and resource, with each request. A tool that is not in the table is not there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jupyter_core.utils import ensure_async
from jupyter_server.auth.identity import IdentityProvider, PasswordIdentityProvider, User
from jupyter_server.base.handlers import JupyterHandler

from sandbox.errors import NotPermitted
from sandbox.server.grants import Grant
from sandbox.server.scopes import SCOPES

Needed = tuple[tuple[str, str], ...]
"""Actions, each with the resource that it is on."""

READ_KERNELS: Needed = (("read", "kernels"),)
WRITE_KERNELS: Needed = (("write", "kernels"),)
EXECUTE: Needed = (("execute", "kernels"),)
RUN: Needed = (*EXECUTE, *WRITE_KERNELS)
"""Where there is no kernel yet, one is started."""
READ: Needed = (("read", "contents"),)
WRITE: Needed = (("read", "contents"), ("write", "contents"))
RUN_CELLS: Needed = (*RUN, *WRITE)
TERMINAL: Needed = (("execute", "terminals"),)

NEEDS: dict[str, Needed] = {
    "execute_code": RUN,
    "complete_code": RUN,
    "inspect_code": RUN,
    "get_execution": EXECUTE,
    "list_executions": EXECUTE,
    "list_kernels": READ_KERNELS,
    "start_kernel": WRITE_KERNELS,
    "interrupt_kernel": WRITE_KERNELS,
    "restart_kernel": WRITE_KERNELS,
    "stop_kernel": WRITE_KERNELS,
    "open_terminal": (("write", "terminals"), *TERMINAL),
    "write_terminal": TERMINAL,
    "read_terminal": TERMINAL,
    "resize_terminal": TERMINAL,
    "close_terminal": (("write", "terminals"),),
    "list_terminals": (("read", "terminals"),),
    "list_files": READ,
    "read_file": READ,
    "stat_file": READ,
    "write_file": WRITE,
    "edit_file": WRITE,
    "delete_file": WRITE,
    "move_file": WRITE,
    "make_directory": WRITE,
    "use_notebook": WRITE,
    "list_notebooks": READ,
    "read_notebook": READ,
    "read_cell": READ,
    "unuse_notebook": WRITE,
    "insert_cell": WRITE,
    "overwrite_cell_source": WRITE,
    "edit_cell_source": WRITE,
    "move_cell": WRITE,
    "delete_cell": WRITE,
    "clear_cell_output": WRITE,
    "execute_cell": RUN_CELLS,
    "insert_execute_code_cell": RUN_CELLS,
    "run_notebook": RUN_CELLS,
    "restart_notebook": WRITE_KERNELS,
    "launch_sandbox": (*WRITE_KERNELS, *WRITE),
}
"""What the authorizer is asked about each tool that there is on a Jupyter Server."""

TERMINALS = frozenset(tool for tool, needed in NEEDS.items() if needed[0][1] == "terminals")
"""The tools that are there only where the server has terminals."""

SHARED = "jupyter"
"""The principal of all who came with the server's one token, which names nobody."""


@dataclass(frozen=True, slots=True)
class JupyterGrant(Grant):
    """What one request to a Jupyter Server may do."""

    permitted: frozenset[str] = field(default=frozenset())
    """The tools that the authorizer allows."""

    def offers(self, tool: str) -> bool:
        """Whether a tool is there for it; which ones there are, the server's settings say."""
        return tool in NEEDS

    def allows(self, tool: str) -> bool:
        """Whether it may be used for a tool."""
        return tool in self.permitted

    def require(self, tool: str) -> None:
        """Refuse a tool that the authorizer does not allow.

        Raises:
            NotPermitted: It does not.
        """
        if tool not in self.permitted:
            needed = ", ".join(f"{action} {resource}" for action, resource in NEEDS.get(tool, ()))
            raise NotPermitted(
                f"This Jupyter Server's authorizer does not let you use {tool}.",
                remedy=f"It needs: {needed}." if needed else "",
            )


async def grant_for(handler: JupyterHandler, user: User) -> JupyterGrant:
    """What a request may do that Jupyter Server has authenticated."""
    answers: dict[tuple[str, str], bool] = {}
    for action, resource in dict.fromkeys(each for needed in NEEDS.values() for each in needed):
        said = handler.authorizer.is_authorized(handler, user, action, resource)
        answers[action, resource] = await ensure_async(said) is True
    permitted = frozenset(tool for tool, needed in NEEDS.items() if all(map(answers.get, needed)))
    principal = principal_of(handler, user)
    return JupyterGrant(principal, SHARED, SHARED, frozenset(SCOPES), permitted=permitted)


def principal_of(handler: JupyterHandler, user: User) -> str:
    """Whose request it is. Jupyter makes up a name for each request that came with its one token:
    all of those are one principal's."""
    is_nobodys = type(handler.identity_provider) in (IdentityProvider, PasswordIdentityProvider)
    return SHARED if is_nobodys and handler.token_authenticated else user.username
