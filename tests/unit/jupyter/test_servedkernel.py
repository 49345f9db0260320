"""A kernel of a served controller over a connection that is played."""

from __future__ import annotations

import json
from typing import Any, cast

import anyio
import pytest

from sandbox.errors import Conflict
from sandbox.jupyter.servedkernel import ServedKernel
from sandbox.kernels.messages import made_header

pytestmark = pytest.mark.anyio

WAIT_S = 10


class Channel:
    """A WebSocket whose server answers each request with the same content."""

    def __init__(self, **content: Any) -> None:
        self._content = content
        self._said, self._heard = anyio.create_memory_object_stream[dict[str, Any]](10)

    async def send_whole(self, message: str) -> None:
        request = json.loads(message)
        kind = request["header"]["msg_type"].replace("_request", "_reply")
        answer = {"channel": "control", "header": made_header(kind, "s"), "content": self._content}
        await self._said.send({**answer, "parent_header": request["header"]})

    async def receive(self) -> dict[str, Any]:
        return await self._heard.receive()

    def close(self) -> None:
        self._said.close()
        self._heard.close()


async def restarted(**content: Any) -> None:
    """Restart a kernel whose controller answers with that."""
    channel = Channel(**content)
    kernel = ServedKernel(cast("Any", None), "s-1", "k-default", cast("Any", channel))

    async def hear() -> None:
        async for _ in kernel.heard():
            raise AssertionError("what we have asked for ourselves is no client's")

    try:
        with anyio.fail_after(WAIT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hear)
                try:
                    await kernel.restart()
                finally:
                    tasks.cancel_scope.cancel()
    finally:
        channel.close()


async def test_a_restart_is_done_when_the_controller_says_so() -> None:
    await restarted(status="ok", restart=True)


async def test_a_restart_that_is_refused_is_told_as_one() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(Conflict, match="Its policy does not")):
        await restarted(status="error", evalue="Its policy does not allow restart_kernel.")
