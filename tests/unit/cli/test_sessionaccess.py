"""What a command hears over a channel."""

from __future__ import annotations

import anyio
import pytest

from sandbox.cli import sessionaccess
from sandbox.cli.sessionaccess import heard
from sandbox.server.channels.channel import memory_channel

pytestmark = pytest.mark.anyio


async def test_a_server_that_says_nothing_for_long_is_told_that_somebody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessionaccess, "ALIVE_S", 0.01)
    here, there = memory_channel()

    async def answer_late() -> None:
        for _ in range(2):
            assert await there.receive() == {}
        await there.send({"x": 1})

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer_late)
            assert await heard(here, alive={}) == {"x": 1}
    here.close()
    there.close()
