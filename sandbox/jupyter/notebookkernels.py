"""Which kernel runs a notebook of a Jupyter Server: the one of the server's session for its path.

So an agent runs cells in the kernel that JupyterLab has for that notebook, and JupyterLab finds the
kernel that was started for an agent.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable
from typing import Any

from sandbox.errors import InfrastructureError, InvalidRequest
from sandbox.jupyter.serverkernels import ServerKernels

DEFAULT_NAME = "python3"


class NotebookKernels:
    """The server's sessions, by the paths of their notebooks.

    Args:
        sessions: The server's session manager.
        look: Has the session note the kernels that there are now.
    """

    def __init__(
        self, sessions: Any, kernels: ServerKernels, look: Callable[[], Awaitable[None]]
    ) -> None:
        self._sessions = sessions
        self._kernels = kernels
        self._look = look

    async def of(self, path: str) -> str:
        """How we name the kernel of a notebook; empty when it has none."""
        found = await self._session(path)
        return "" if found is None else self._kernels.named(str(found["kernel"]["id"]))

    async def chosen(self, path: str, named: str, language: str) -> str:
        """The kernel of a notebook, started if need be; of the kernelspec that it names, if the
        server has that, else of its language.

        Raises:
            InvalidRequest: The server has none of its language.
        """
        if kernel_id := await self.of(path):
            await self._look()
            return kernel_id
        specs = await self._kernels.installed()
        alike = [name for name, spec in specs.items() if spec["language"] == (language or "python")]
        name = named if named in specs else DEFAULT_NAME if DEFAULT_NAME in alike else ""
        if not (name := name or next(iter(alike), "")):
            raise InvalidRequest(
                f"This server has no kernel {named[:80]!r}.",
                remedy=f"It has {', '.join(specs) or 'none'}: name a kernel with kernel_id.",
            )
        model = await self._made(path, kernel_name=name)
        await self._look()
        return self._kernels.named(str(model["kernel"]["id"]))

    async def use(self, path: str, kernel_id: str) -> None:
        """Have the server know that a kernel is a notebook's.

        Raises:
            NotFound: There is no such kernel.
        """
        jupyter_id = self._kernels.own_id(kernel_id)
        found = await self._session(path)
        if found is None:
            await self._made(path, kernel_id=jupyter_id)
        elif found["kernel"]["id"] != jupyter_id:
            await self._sessions.update_session(found["id"], kernel_id=jupyter_id)

    async def _session(self, path: str) -> dict[str, Any] | None:
        for each in await self._sessions.list_sessions():
            if each["path"] == path and each.get("kernel"):
                return each
        return None

    async def _made(self, path: str, **kernel: str) -> dict[str, Any]:
        name = posixpath.basename(path)
        try:
            return await self._sessions.create_session(
                path=path, name=name, type="notebook", **kernel
            )
        except Exception as exc:  # whatever a provisioner fails with
            raise InfrastructureError(f"The kernel did not start: {exc!s:.500}") from exc
