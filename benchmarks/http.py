"""Running a cell over REST, against the same over MCP."""

from __future__ import annotations

import statistics

import httpx2
from mcp import Client

from benchmarks.measures import call, check, timed
from benchmarks.report import Figure, spread
from scripts.controller import Controller


async def execution(client: Client, server: Controller, here: str, runs: int = 60) -> Figure:
    """``POST …/executions`` of ``1+1``, against ``execute_code`` with the official client, in turns
    of 10."""
    rest: list[float] = []
    mcp: list[float] = []
    path = f"/mcp/v1/sessions/{here}/executions"
    headers = {"Authorization": f"Bearer {server.token}"}
    async with httpx2.AsyncClient(base_url=server.base, headers=headers, timeout=60) as http:

        async def over_rest() -> None:
            answer = await http.post(path, json={"code": "1+1"})
            check(answer.json().get("text") == "2", answer.text)

        async def over_mcp() -> None:
            told = await call(client, "execute_code", code="1+1", session_id=here)
            check(told["text"] == "2", told)

        await over_rest()
        await over_mcp()
        for _ in range(runs // 10):
            for _ in range(10):
                rest.append(await timed(over_rest))
            for _ in range(10):
                mcp.append(await timed(over_mcp))
    ratio = statistics.median(rest) / statistics.median(mcp)
    detail = f"REST {spread(rest)}; MCP {spread(mcp)}"
    return Figure("REST POST executions / execute_code", ratio, "×", 0.8, True, detail)
