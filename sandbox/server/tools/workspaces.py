"""Named workspaces: which there are, and deleting them."""

from __future__ import annotations

from typing import Annotated

from mcp_types import CallToolResult
from pydantic import BaseModel

from sandbox.server import arguments as arg
from sandbox.server.desk import caller_of
from sandbox.server.http.place import Http
from sandbox.server.tool import CallContext, ToolGroup, reply, tool
from sandbox.workspaces.models import WorkspaceInfo


class WorkspaceList(BaseModel):
    """The caller's named workspaces."""

    workspaces: list[WorkspaceInfo]


class DeletedWorkspace(BaseModel):
    """A workspace that is gone."""

    name: str


class WorkspaceTools(ToolGroup):
    """The tools that act on named workspaces. No policy takes them away."""

    @tool(
        "List workspaces",
        reads=True,
        http=Http("GET", "/workspaces", items="workspaces"),
    )
    async def list_workspaces(self, ctx: CallContext) -> Annotated[CallToolResult, WorkspaceList]:
        """List your named workspaces, which open_session brings back."""
        found = WorkspaceList(workspaces=self._manager.workspaces(caller_of(ctx)))
        lines = [
            f"{each.name}: {each.size_bytes} bytes"
            + (f", in use by {each.session_id}" if each.session_id else "")
            for each in found.workspaces
        ]
        return reply(found, "\n".join(lines) or "You have no workspace.")

    @tool(
        "Delete a workspace",
        destroys=True,
        http=Http("DELETE", "/workspaces/{name}"),
    )
    async def delete_workspace(
        self, ctx: CallContext, name: arg.WorkspaceName
    ) -> Annotated[CallToolResult, DeletedWorkspace]:
        """Delete a named workspace and its files for good."""
        await self._manager.delete_workspace(caller_of(ctx), name)
        return reply(DeletedWorkspace(name=name), f"The workspace {name} is deleted.")
