"""Running a cell over REST, against the same over MCP."""

from __future__ import annotations

import json
import statistics
from contextlib import closing
from http.client import HTTPConnection

import anyio.to_thread
from mcp import Client

from benchmarks.measures import call, check, timed
from benchmarks.report import Figure, spread
from scripts.controller import Controller


async def execution(client: Client, server: Controller, here: str, runs: int = 100) -> Figure:
    """``POST …/executions`` of ``1+1`` with what Python brings, on a connection that is kept,
    against ``execute_code`` with the official client; one after the other, so that both meet the
    machine in the same state."""
    rest: list[float] = []
    mcp: list[float] = []
    path = f"/mcp/v1/sessions/{here}/executions"
    headers = {**server.headers, "Content-Type": "application/json"}
    with closing(HTTPConnection(server.base.removeprefix("http://"), timeout=60)) as http:

        def post() -> None:
            http.request("POST", path, json.dumps({"code": "1+1"}), headers)
            told = json.loads(http.getresponse().read())
            check(told.get("text") == "2", told)

        async def over_rest() -> None:
            await anyio.to_thread.run_sync(post)

        async def over_mcp() -> None:
            told = await call(client, "execute_code", code="1+1", session_id=here)
            check(told["text"] == "2", told)

        await over_rest()
        await over_mcp()
        for _ in range(runs):
            rest.append(await timed(over_rest))
            mcp.append(await timed(over_mcp))
    ratio = statistics.median(rest) / statistics.median(mcp)
    detail = f"REST {spread(rest)}; MCP {spread(mcp)}"
    return Figure("REST POST executions / execute_code", ratio, "×", 0.8, True, detail)
