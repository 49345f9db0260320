"""The other end of a link to a Jupyter Server: what a supervisor is in a container.

Sessions, kernels, terminals and files speak over a link (docs/link.md). Here its other end is in
the same process, and its operations are done by the managers of the server. So all that is built
on a link works on a Jupyter Server as it does on a sandbox, within the same bounds. It is none:
what runs, runs on that server as its user does.
"""

from __future__ import annotations

from anyio.abc import TaskGroup

from sandbox.errors import InvalidRequest
from sandbox.jupyter.serverfiles import ServerFiles
from sandbox.jupyter.serverkernels import ServerKernels
from sandbox.jupyter.serverterminals import ServerTerminals
from sandbox.link.link import Link
from sandbox.link.memory import pipe
from sandbox.link.stream import Stream


class ServerEnd:
    """Answers what is asked over a link, with the managers of a Jupyter Server."""

    def __init__(
        self, kernels: ServerKernels, terminals: ServerTerminals, files: ServerFiles
    ) -> None:
        self.kernels = kernels
        self.terminals = terminals
        self._parts = {"kernel": kernels, "terminal": terminals, "file": files}

    async def link(self, tasks: TaskGroup) -> Link:
        """Run a link to this end and return its other one, greeted."""
        near, far = pipe()
        ours = Link(near, initiator=True, hello={"build": "extension"})
        theirs = Link(far, initiator=False, hello={"build": "extension"}, on_open=self._opened)
        tasks.start_soon(theirs.run)
        tasks.start_soon(ours.run)
        await ours.greeting()
        return ours

    async def _opened(self, stream: Stream) -> None:
        part, _, op = str(stream.request.get("op", "")).partition(".")
        if part == "info":
            await stream.send_json({"kernelspecs": await self.kernels.installed()})
        elif (found := self._parts.get(part)) is not None:
            await found.serve(stream, op)
        else:
            raise InvalidRequest(f"There is no operation {stream.request.get('op')!r:.40}.")
