"""A served controller that is attacked while somebody else uses it.

Its address space is bounded to 200 MiB beside what it takes at rest, so memory that an attack costs
ends in a MemoryError. The neighbour runs ``1 + 1`` again and again, as another principal.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
from mcp import Client

from sandbox.server.scopes import SCOPES
from sandbox.server.tokens import TokenStore

from ..support.served import Served, close_all, serve

SPARE_BYTES = 200 * 1024 * 1024
PAUSE_S = 0.2
MAX_ANSWER_S = 1.0


def as_principal(served: Served, principal: str) -> Served:
    """The same controller, called by somebody else."""
    store = TokenStore(served.state)
    try:
        token, _ = store.create(principal, tuple(SCOPES), policies=None, lifetime_s=None)
    finally:
        store.close()
    return replace(served, token=token)


@contextmanager
def pressed(folder: Path, **options: int) -> Iterator[Served]:
    """A controller with little memory to spare; what its log says at the end is looked at."""
    with serve(folder, spare_bytes=SPARE_BYTES, **options) as served:
        yield served
        for principal in ("attacker", "neighbour"):
            close_all(as_principal(served, principal))
        said = served.log.read_text(errors="replace")
    assert "MemoryError" not in said
    assert "Traceback" not in said, said


async def answer_s(client: Client) -> float:
    """How long ``1 + 1`` takes."""
    began = time.monotonic()
    result = await client.call_tool("execute_code", {"code": "1 + 1"})
    assert result.structured_content is not None, result.content
    assert result.structured_content["status"] == "ok", result.structured_content
    return time.monotonic() - began


@asynccontextmanager
async def neighbour_served(served: Served) -> AsyncIterator[None]:
    """Somebody else is served all the time that the block takes, as fast as before, and after it;
    and the controller has its memory back."""
    process = psutil.Process(served.process.pid)
    async with as_principal(served, "neighbour").client() as client:
        await answer_s(client)  # opens the session
        quiet_s = max([await answer_s(client) for _ in range(10)])
        at_rest = process.memory_info().rss
        times: list[float] = []

        over = anyio.Event()

        async def work() -> None:
            while not over.is_set():
                times.append(await answer_s(client))
                await anyio.sleep(PAUSE_S)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            yield
            over.set()  # a call that is given up would be another thing to look at
        times.append(await answer_s(client))
    assert max(times) < MAX_ANSWER_S + quiet_s, (max(times), quiet_s)
    assert process.memory_info().rss - at_rest < SPARE_BYTES
