"""A notebook that several share: how soon a peer sees an edit, and twenty who type at once."""

from __future__ import annotations

import statistics
import time
from contextlib import AsyncExitStack
from functools import partial

import anyio
import psutil
from mcp import Client

from benchmarks.measures import MEGABYTE, call, check
from benchmarks.report import Figure, spread
from scripts.controller import Controller
from tests.support.roomclient import RoomClient, in_room

PATH = "shared.ipynb"
PEERS = 20
EDITS_PER_S = 10
TYPING_S = 10
WATCHED = 3
"""So many of the peers look at all that comes; the others just take it."""


async def edit_to_peer(client: Client, server: Controller, runs: int = 60) -> Figure:
    """From the call of a tool that edits a cell until a peer in the room has it."""
    here = await _shared(client, cells=1)
    seen: list[float] = []
    async with in_room(*_room(server, here)) as peer:
        for number in range(runs):
            source = f"x = {number}"
            edit = {"cell_index": 0, "cell_source": source, **here}
            start = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(call, client, "overwrite_cell_source", **edit))
                await peer.until(lambda source=source: peer.sources[0] == source)
                seen.append(time.perf_counter() - start)
    await call(client, "close_session", **here)
    value = 1000 * statistics.median(seen)
    return Figure("MCP edit → a connected peer", value, "ms", 30, True, spread(seen))


class Watcher(RoomClient):
    """A peer that notes when it has each character that was typed into each cell."""

    def __init__(self, typed: list[list[float]], own: int, delays: list[float]) -> None:
        super().__init__()
        self._typed, self._own, self._delays = typed, own, delays
        self._seen = [0] * len(typed)
        self.is_watching = False

    def _tell(self) -> None:
        super()._tell()
        if not self.is_watching:
            return
        now = time.perf_counter()
        for index, cell in enumerate(self.cells):
            count = len(cell["source"])
            if index != self._own:
                times = self._typed[index][self._seen[index] : count]
                self._delays += [now - typed for typed in times]
            self._seen[index] = count


async def twenty_peers(client: Client, server: Controller) -> list[Figure]:
    """Twenty peers of one notebook, ten characters a second each, into a cell of their own."""
    here = await _shared(client, cells=PEERS)
    process = psutil.Process(server.pid)
    typed: list[list[float]] = [[] for _ in range(PEERS)]
    delays: list[float] = []
    memory: list[int] = []

    async def type_on(peer: RoomClient, own: int, until: float) -> None:
        due = time.perf_counter() + own / PEERS / EDITS_PER_S
        while due < until:
            await anyio.sleep(max(0.0, due - time.perf_counter()))
            typed[own].append(time.perf_counter())
            peer.type(own, "x")
            due += 1 / EDITS_PER_S

    async def sample() -> None:
        while True:
            memory.append(process.memory_info().rss)
            await anyio.sleep(0.5)

    async with AsyncExitStack() as stack:
        peers = [Watcher(typed, own, delays) for own in range(PEERS)]
        for peer in peers:
            await stack.enter_async_context(in_room(*_room(server, here), client=peer))
        for peer in peers[:WATCHED]:
            peer.is_watching = True
        until = time.perf_counter() + TYPING_S
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sample)
            async with anyio.create_task_group() as typing:
                for own, peer in enumerate(peers):
                    typing.start_soon(type_on, peer, own, until)
            edits = sum(map(len, typed))
            for peer in peers:
                await peer.until(lambda peer=peer: sum(map(len, peer.sources)) == edits)
            tasks.cancel_scope.cancel()
        check(len({tuple(peer.sources) for peer in peers}) == 1, "they are not the same")
    await call(client, "close_session", **here)
    growth = (max(memory) - memory[len(memory) // 5]) / MEGABYTE
    late = 1000 * statistics.quantiles(delays, n=100)[98]
    told = f"{edits} edits in {TYPING_S} s, {spread(delays)}; all peers in one process"
    what = f"{PEERS} peers, {EDITS_PER_S} edits/s each"
    return [
        Figure(f"{what}: 99th percentile", late, "ms", 200, True, told),
        Figure(
            f"{what}: controller's growth",
            growth,
            "MB",
            10,
            True,
            f"after the first fifth, to {max(memory) / MEGABYTE:.0f} MB",
        ),
    ]


async def _shared(client: Client, cells: int) -> dict[str, str]:
    """A session with a notebook of empty cells, as arguments that name it."""
    opened = await call(client, "open_session", policy="bench", reuse=False)
    here = {"session_id": opened["session_id"]}
    named = {"notebook_name": "shared", "notebook_path": PATH, "mode": "create"}
    await call(client, "use_notebook", **named, **here)
    for _ in range(cells):
        added = {"cell_index": -1, "cell_type": "code", "cell_source": ""}
        await call(client, "insert_cell", **added, **here)
    return here


def _room(server: Controller, here: dict[str, str]) -> tuple[int, str, str, dict[str, str]]:
    port = int(server.base.rpartition(":")[2])
    return port, here["session_id"], PATH, server.headers
