"""The one tool that is there in a Jupyter Server only: a notebook's kernel in a sandbox."""

from __future__ import annotations

from typing import Annotated, cast

from mcp_types import CallToolResult
from pydantic import BaseModel

from sandbox.errors import NotFound
from sandbox.jupyter.session import JupyterSession
from sandbox.server import arguments as arg
from sandbox.server.notebooksinuse import in_use
from sandbox.server.tool import CallContext, ToolGroup, reply, tool
from sandbox.server.wording import printable

TOOL = "launch_sandbox"


class Launched(BaseModel):
    """A notebook whose kernel is in a sandbox."""

    notebook_name: str
    notebook_path: str
    kernel_id: str
    kernel_name: str
    """Of the kernelspec."""
    policy: str
    """Of the sandbox; empty for the default one of its controller."""


class LaunchTools(ToolGroup):
    """The tool that moves a notebook into a sandbox."""

    @tool("Put a notebook's kernel into a sandbox")
    async def launch_sandbox(
        self,
        ctx: CallContext,
        notebook_name: arg.NotebookName = "",
        policy: arg.PolicyName = "",
        session_id: arg.ItsSessionId = "",
    ) -> Annotated[CallToolResult, Launched]:
        """Start a kernel in an isolated container under a policy, and have the notebook's cells run
        there from now on.

        Variables do not come along, and the server's files are not visible in it. Its former kernel
        goes on; stop_kernel ends it.
        """
        async with in_use(self._desk, ctx, session_id, TOOL, notebook_name) as used:
            session = cast("JupyterSession", used.session)
            there = await session.sandboxes()
            name = next((name for name, each in there.items() if policy in ("", each)), "")
            if not name:
                raise NotFound(
                    f"This server has no kernel in a sandbox under the policy {policy!r:.80}."
                    if policy
                    else "This server has no kernel in a sandbox.",
                    remedy=f"It has: {', '.join(filter(None, there.values())) or 'none'}. On its "
                    "machine, `sandbox kernelspec install --policy NAME` adds one.",
                )
            info = await session.kernels.start(name)
            await used.live.use_kernel(info.kernel_id)
            await session.choice.use(used.live.path.lstrip("/"), info.kernel_id)
            found = Launched(
                notebook_name=used.named.name,
                notebook_path=used.live.path,
                kernel_id=info.kernel_id,
                kernel_name=name,
                policy=there[name],
            )
        said = f"The cells of {printable(found.notebook_name)!r} run in a sandbox now: kernel "
        return reply(found, f"{said}{found.kernel_id}, policy {found.policy or 'by default'}.")
