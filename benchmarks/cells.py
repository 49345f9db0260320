"""What a cell costs, against a bare kernel in the same run; restarts and first imports."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import anyio.to_thread
from jupyter_client.manager import start_new_kernel
from mcp import Client

from benchmarks.lean import LeanClient
from benchmarks.measures import call, check, compiler, timed
from benchmarks.report import Figure, spread
from sandbox.link.link import Link
from sandbox.runtimes.docker.runtime import DockerRuntime
from scripts.controller import Controller
from tests.support.supervisorprocess import Cells

CELL = "1+1"
TURN = 10
"""Cells of one kind after each other: few, so that each meets the machine in the same state."""


def seconds(work: Callable[[], object], runs: int) -> list[float]:
    """The seconds that ``work`` takes each time."""
    durations: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return durations


async def round_trip(
    client: Client, server: Controller, here: str, turns: int = 25
) -> list[Figure]:
    """``1+1`` over MCP with a lean client, over REST, over a link alone, with the official client,
    and in a bare ipykernel of this machine through jupyter_client, in turns."""
    manager, bare = start_new_kernel(kernel_name="python3")

    def over_jupyter() -> None:
        bare.execute_interactive(CELL, output_hook=lambda _message: None, timeout=30)

    def over_rest() -> None:
        told = lean.post(f"sessions/{here}/executions", {"code": CELL})
        check(told["text"] == "2", told)

    async def over_official() -> None:
        told = await call(client, "execute_code", code=CELL, session_id=here)
        check(told["text"] == "2", told)

    ways = {
        "jupyter_client": over_jupyter,
        "MCP": lambda: lean.run(CELL, session_id=here),
        "REST": over_rest,
    }
    times: dict[str, list[float]] = {name: [] for name in (*ways, "official", "link")}
    try:
        with LeanClient(server) as lean:
            async with _linked() as cells:
                for _ in range(turns):
                    for name, way in ways.items():
                        times[name] += await anyio.to_thread.run_sync(seconds, way, TURN)
                    for _ in range(TURN):
                        times["official"].append(await timed(over_official))
                        times["link"].append(await timed(lambda: cells.run(CELL)))
    finally:
        bare.stop_channels()
        manager.shutdown_kernel(now=True)
    middle = {name: statistics.median(durations) for name, durations in times.items()}
    said = {name: spread(durations) for name, durations in times.items()}
    raw = f"jupyter_client {said['jupyter_client']}"
    official = f"official client {said['official']}, "
    official += f"{middle['official'] / middle['jupyter_client']:.2f} ×"

    def ratio(what: str, name: str, target: float, detail: str) -> Figure:
        value = middle[name] / middle["jupyter_client"]
        return Figure(f"{what} / bare kernel", value, "×", target, True, detail)

    return [
        ratio("execute_code('1+1')", "MCP", 0.6, f"lean client {said['MCP']}; {raw}; {official}"),
        ratio("the same through REST", "REST", 0.45, f"REST {said['REST']}"),
        Figure("link and kernel alone", 1000 * middle["link"], "ms", 1.2, True, said["link"]),
    ]


@asynccontextmanager
async def _linked() -> AsyncIterator[Cells]:
    """A kernel in a container of its own, over a link without a controller."""
    engine = DockerRuntime.connect_engine()
    spec = compiler(replace(await engine.engine(), runtimes=("runc",)))()
    container_id = await engine.create(spec)
    try:
        await engine.start(container_id)
        link = Link(await engine.connect(container_id), initiator=True, hello={})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            await link.greeting()
            await link.call("kernel.start", kernel_id="k", name="python3")
            cells = Cells(link, "k")
            await cells.run(CELL)
            yield cells
            await link.aclose()
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await engine.remove(container_id)
            await engine.aclose()


async def restart(server: Controller, here: str, runs: int = 20) -> Figure:
    """Restart a kernel, which ends when the new one answers."""

    def measured() -> tuple[list[float], list[float]]:
        with LeanClient(server) as lean:
            restarts: list[float] = []
            cells: list[float] = []
            for _ in range(runs):
                restarts += seconds(lambda: lean.call("restart_kernel", session_id=here), 1)
                cells += seconds(lambda: lean.run(CELL, session_id=here), 1)
            return restarts, cells

    restarts, cells = await anyio.to_thread.run_sync(measured)
    value = 1000 * statistics.median(restarts)
    detail = f"{spread(restarts)}; the first cell after it {spread(cells)}"
    return Figure("kernel restart", value, "ms", 25, True, detail)


async def first_import(server: Controller, runs: int = 7) -> Figure:
    """The first ``import pandas`` of a session under a policy that preloads it.

    The call of the cell that does no more than that, when the session has answered once.
    """
    code = "import time\nstart = time.perf_counter()\nimport pandas\ntime.perf_counter() - start"

    def measured() -> tuple[list[float], list[float]]:
        calls: list[float] = []
        imports: list[float] = []
        with LeanClient(server) as lean:
            for _ in range(runs):
                opened = lean.call("open_session", policy="bench-data", reuse=False)
                here = {"session_id": opened["session_id"]}
                lean.run("1", **here)
                start = time.perf_counter()
                told = lean.run(code, **here)
                calls.append(time.perf_counter() - start)
                imports.append(float(told["text"]))
                lean.call("close_session", **here)
        return calls, imports

    calls, imports = await anyio.to_thread.run_sync(measured)
    value = 1000 * statistics.median(calls)
    detail = f"the whole call {spread(calls)}; the import alone {spread(imports)}"
    return Figure("first import pandas in a session", value, "ms", 10, True, detail)
