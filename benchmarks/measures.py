"""The measurements, each through the front door against its baseline in the same run."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import psutil
from mcp import Client

from benchmarks.report import Figure, spread
from sandbox.audit import AuditLog, recorded, verify
from sandbox.bulkheads.overruns import Overruns
from sandbox.container import images
from sandbox.container.compiler import compile_spec
from sandbox.container.engine import EngineInfo
from sandbox.container.identity import SandboxIdentity, new_sandbox_id, new_uid
from sandbox.container.proof import prove
from sandbox.container.spec import ContainerSpec
from sandbox.link.link import Link
from sandbox.policy import load, seccomp_profile
from sandbox.runtimes.docker.runtime import DockerRuntime
from scripts.controller import Controller

FLOOD_BYTES = 1_000_000_000
FILE_BYTES = 256 * 1024 * 1024
MEGABYTE = 1_000_000


class MeasurementFailed(Exception):
    """What was to be measured did not work."""


def check(condition: bool, what: object) -> None:
    """Stop when a figure would not mean what its name says."""
    if not condition:
        raise MeasurementFailed(what)


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must give a structured result."""
    result = await client.call_tool(tool, arguments)
    if result.structured_content is None:
        raise MeasurementFailed(f"{tool}: {result.content}")
    return result.structured_content


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """The seconds that ``work`` takes."""
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


async def cold_start(client: Client, image: str, runs: int = 9) -> Figure:
    """Open a session and get a first result, against ``docker run IMAGE true``."""
    ours: list[float] = []
    bare: list[float] = []
    command = ["docker", "run", "--rm", "--network", "none", image, "true"]

    async def first_result() -> str:
        opened = await call(client, "open_session", reuse=False, policy="bench")
        check(not opened["was_ready"], opened)
        session = opened["session_id"]
        result = await call(client, "execute_code", code="1+1", session_id=session)
        check(result["status"] == "ok", result)
        return session

    for _ in range(runs):
        start = time.perf_counter()
        session = await first_result()
        ours.append(time.perf_counter() - start)
        await call(client, "close_session", session_id=session)
        bare.append(await timed(lambda: anyio.run_process(command)))
    ratio = statistics.median(ours) / statistics.median(bare)
    detail = f"ours {spread(ours)}; docker run {spread(bare)}"
    return Figure("cold open → first result / docker run", ratio, "×", 1.5, True, detail)


async def audit(runs: int = 5000) -> Figure:
    """Put a call on record as the server does: digest, line, hash, write, head."""
    durations: list[float] = []
    arguments = {"code": "print(1 + 1)\n" * 20, "session_id": "s-" + "x" * 26}
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        log = AuditLog(Path(folder) / "audit", "bench")
        for _ in range(runs):
            start = time.perf_counter()
            with recorded(
                log, principal="local", tool="execute_code", arguments=arguments, transport="http"
            ) as call:
                log.require()
                call.session_id = arguments["session_id"]
                call.policy, call.policy_digest = "offline", "0" * 64
                call.ended("ok", "ok")
            durations.append(time.perf_counter() - start)
        log.close()
        verdict = verify(Path(folder) / "audit", "bench")
    check(verdict.is_intact and verdict.lines == runs, verdict)
    middle, most = statistics.median(durations), statistics.quantiles(durations, n=100)[98]
    detail = f"median {1e6 * middle:.0f} µs, 99th percentile {1e6 * most:.0f} µs, n={runs}"
    return Figure("audit record of a call", 1000 * middle, "ms", 0.2, True, detail)


async def bulkhead(runs: int = 20_000) -> Figure:
    """What a section costs: the work of a message and its outputs, in two of them, and without."""
    overruns = Overruns("s-bench")
    durations: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        with overruns.section("a message"):
            pass
        with overruns.section("its output"):
            pass
        durations.append(time.perf_counter() - start)
    middle, most = statistics.median(durations), statistics.quantiles(durations, n=100)[98]
    detail = f"median {1e6 * middle:.1f} µs, 99th percentile {1e6 * most:.1f} µs, n={runs}"
    return Figure("bulkhead per message", 1e6 * middle, "µs", 20, True, detail)


def upload(server: Controller, path: str, payload: bytes) -> None:
    """Send a file over REST with the standard library's client, which costs little itself."""
    connection = HTTPConnection(server.base.removeprefix("http://"), timeout=60)
    with closing(connection):
        connection.request("PUT", path, payload, server.headers)
        answer = connection.getresponse()
        check(answer.status in (200, 201), answer.read())


def download(server: Controller, path: str) -> None:
    """Take a file over REST."""
    connection = HTTPConnection(server.base.removeprefix("http://"), timeout=60)
    with closing(connection):
        connection.request("GET", path, headers=server.headers)
        answer = connection.getresponse()
        size, buffer = 0, bytearray(MEGABYTE)
        while got := answer.readinto(buffer):
            size += got
        check((answer.status, size) == (200, FILE_BYTES), (answer.status, size))


async def transfer(server: Controller, session: str, runs: int = 5) -> list[Figure]:
    """Upload and download a file over REST."""
    payload = os.urandom(FILE_BYTES)
    path = f"/mcp/v1/sessions/{session}/files/bench.bin"
    up: list[float] = []
    down: list[float] = []
    for _ in range(runs):
        up.append(await timed(lambda: anyio.to_thread.run_sync(upload, server, path, payload)))
        down.append(await timed(lambda: anyio.to_thread.run_sync(download, server, path)))
    return [
        Figure(
            f"file {name}",
            FILE_BYTES / MEGABYTE / statistics.median(durations),
            "MB/s",
            100,
            False,
            f"{FILE_BYTES // MEGABYTE} MB in {spread(durations)}",
        )
        for name, durations in (("upload", up), ("download", down))
    ]


async def flood(client: Client, server: Controller, session: str) -> Figure:
    """The controller's memory while a cell prints 1 GB, sampled every 50 ms."""
    process = psutil.Process(server.pid)
    code = (
        "line = 'x' * 999 + '\\n'\n"
        f"for _ in range({FLOOD_BYTES} // 1000):\n    print(line, end='')\n"
    )
    await call(client, "execute_code", code="print('x' * 1_000_000)", session_id=session)
    before = process.memory_info().rss
    peak = before
    done = anyio.Event()

    async def sample() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            await anyio.sleep(0.05)

    start = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sample)
        result = await call(client, "execute_code", code=code, session_id=session, timeout=240)
        while result["status"] == "running":
            result = await call(
                client, "get_execution", execution_id=result["execution_id"], wait=50
            )
        done.set()
    check(result["status"] == "ok", result["status"])
    seconds = time.perf_counter() - start
    growth = (peak - before) / MEGABYTE
    detail = (
        f"{before / MEGABYTE:.0f} MB before, {peak / MEGABYTE:.0f} MB at most; 1 GB in "
        f"{seconds:.1f} s; {result['truncated_bytes']:,} bytes reported as cut"
    )
    return Figure("controller memory under a 1 GB flood", growth, "MB", 20, True, detail)


def compiler(engine: EngineInfo) -> Callable[[], ContainerSpec]:
    """What compiles the default policy, which is loaded already."""
    policy, seccomp = load().get(), seccomp_profile()
    image = images.reference(policy.image)
    identity = SandboxIdentity(
        sandbox_id=new_sandbox_id(),
        owner="bench",
        uid=new_uid(),
        created_at=time.time(),
    )
    return lambda: compile_spec(policy, identity, engine=engine, image=image, seccomp=seccomp)


async def policy_compile(runs: int = 200) -> Figure:
    """Compile a loaded policy into a spec."""
    runtime = DockerRuntime.connect_engine()
    work = compiler(replace(await runtime.engine(), runtimes=("runc",)))
    await runtime.aclose()
    durations: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    value = 1000 * statistics.median(durations)
    return Figure("policy compile", value, "ms", 1, True, spread(durations))


async def proof(runs: int = 15) -> Figure:
    """Prove a container from inside, over its link, as each session does when it is opened."""
    engine = DockerRuntime.connect_engine()
    info = replace(await engine.engine(), runtimes=("runc",))
    spec = compiler(info)()
    container_id = await engine.create(spec)
    try:
        await engine.start(container_id)
        link = Link(await engine.connect(container_id), initiator=True, hello={})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            await link.greeting()
            durations = [
                await timed(lambda: prove(link, spec, reports=info.reports)) for _ in range(runs)
            ]
            await link.aclose()
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await engine.remove(container_id)
            await engine.aclose()
    value = 1000 * statistics.median(durations)
    return Figure("proof of a session", value, "ms", 60, True, spread(durations))
