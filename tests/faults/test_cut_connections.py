"""Clients whose connections break in the middle of whatever they ask for."""

from __future__ import annotations

import random
import socket
import struct
from pathlib import Path

import anyio
import anyio.abc
import pytest

from ..support.counting import counting
from ..support.observedrun import ObservedRun
from ..support.rawclient import MODERN, RawClient

pytestmark = pytest.mark.anyio

CALLS = 40
LATEST_S = 0.3
AT_ONCE = 8
ENDED_S = 30.0


async def cut(stream: anyio.abc.SocketStream, *, aborts: bool) -> None:
    """Break a connection; with a reset, if it is not to be closed in order."""
    if aborts:
        given = anyio.abc.SocketAttribute.raw_socket
        stream.extra_attributes[given]().setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    await stream.aclose()


async def test_a_client_that_is_cut_off_anywhere_leaves_nothing_behind_and_loses_nothing(
    folder: Path, order: random.Random
) -> None:
    """Each call is carried out once or not at all, and cells that nobody hears of end."""
    calls = [
        ("execute_code", {"code": "c += 1"}),
        ("execute_code", {"code": "c += 1\nimport time\ntime.sleep(0.1)"}),
        ("run_command", {"command": "echo here; sleep 0.1"}),
        ("open_session", {"reuse": False, "policy": "offline"}),
        ("list_files", {}),
        ("open_terminal", {}),
        ("branch_kernel", {}),
        ("checkpoint_kernel", {"name": "kept"}),
    ]
    async with ObservedRun(folder) as run:
        (beside,) = await run.callers_of(1)
        async with run.served.http() as http, counting(beside):
            era = order.choice([MODERN, "2025-11-25"])
            client = RawClient(run.served, http, era)
            await client.begin()
            await client.run("c = 0")
            limiter = anyio.CapacityLimiter(AT_ONCE)

            async def one(tool: str, arguments: dict[str, object], after_s: float, aborts: bool):
                async with limiter:
                    stream = await client.send(tool, **arguments)
                    await anyio.sleep(after_s)
                    await cut(stream, aborts=aborts)

            cells = 0
            async with anyio.create_task_group() as tasks:
                for _ in range(CALLS):
                    tool, arguments = order.choice(calls)
                    cells += tool == "execute_code"
                    tasks.start_soon(
                        one, tool, arguments, order.uniform(0, LATEST_S), order.random() < 0.5
                    )
            counted = int((await client.run("c")).split()[0])
            assert 0 <= counted <= cells
            statuses = {"running"}
            with anyio.fail_after(ENDED_S):
                while "running" in statuses:
                    again = await client.call("list_executions")
                    statuses = {each["status"] for each in again["structuredContent"]["executions"]}
            assert statuses <= {"ok", "interrupted"}, statuses
            await client.end()
        await run.close_unheard()
        await run.check()
        await run.close()
