"""A link that is made again and again while the engine is away."""

from __future__ import annotations

from itertools import count

import anyio
import pytest

from sandbox.container.connection import Connection
from sandbox.errors import EngineUnavailable, SessionLost
from sandbox.link.link import ByteStream, Link, Stream

pytestmark = pytest.mark.anyio


async def test_an_engine_that_is_away_for_hours_costs_no_sandbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandbox.container.connection.FIRST_DELAY_S", 0.0)
    tries = count()

    async def connect() -> ByteStream:
        if next(tries) < 2000:
            raise EngineUnavailable("The engine does not answer.")
        raise SessionLost("It is gone.")

    async def attach(_link: Link) -> None: ...

    async def serve(_stream: Stream) -> None: ...

    connection = Connection(connect, attach, on_open=serve, is_new=False)
    with pytest.raises(SessionLost):
        await connection.run(task_status=anyio.TASK_STATUS_IGNORED)
    assert connection.is_over
