"""What the list of tools costs whoever reads it, in tokens: a quarter of the characters of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from mcp import Client
from mcp.server.mcpserver import MCPServer

from benchmarks.measures import timed
from benchmarks.report import Figure, spread
from sandbox.server.desk import Desk
from sandbox.server.listing import listed
from sandbox.server.tools.catalogue import all_tools
from sandbox.toolsets import ALL, TOOLSETS, tools_of

CHARACTERS_PER_TOKEN = 4
LISTINGS = 20
READ_BY_MODELS = ("name", "description", "inputSchema")
MAX_INPUTS = 3600
"""For names, descriptions and arguments of all tools but those of notebooks."""
MAX_NOTEBOOK_INPUTS = 1350
"""For those of notebooks."""
BUT_NOTEBOOKS = "all but notebooks"
MAX_TOKENS = {
    ALL: 8300,
    BUT_NOTEBOOKS: 6500,
    "code": 900,
    "kernels": 1200,
    "branches": 700,
    "commands": 700,
    "terminals": 1150,
    "files": 1350,
    "notebooks": 2300,
    "sessions": 1350,
}
"""For each toolset with everything, results too."""


@dataclass(frozen=True)
class Cost:
    """What some tools cost."""

    inputs: int
    """Names, descriptions and arguments, which every client gives its model."""
    outputs: int
    """What is published of results."""
    total: int
    """All of it, with titles and hints."""


def tokens(value: object) -> int:
    """The tokens of a value as JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return round(len(text) / CHARACTERS_PER_TOKEN)


def cost(tools: Sequence[dict[str, Any]]) -> Cost:
    """What tools cost, as ``tools/list`` sends them."""
    return Cost(
        inputs=sum(tokens({key: tool[key] for key in READ_BY_MODELS}) for tool in tools),
        outputs=sum(tokens(tool["outputSchema"]) for tool in tools),
        total=sum(tokens(tool) for tool in tools),
    )


def largest(tools: Sequence[dict[str, Any]], count: int = 5) -> str:
    """The tools that cost most, in words."""
    each = sorted(((cost([tool]), tool["name"]) for tool in tools), key=lambda one: -one[0].total)
    return ", ".join(f"{name} {one.total} ({one.inputs} in)" for one, name in each[:count])


async def tool_lists() -> dict[str, list[dict[str, Any]]]:
    """What ``tools/list`` answers with each toolset, by its name, and with all but one."""
    nobodys = Desk(cast(Any, None))  # its tools are listed and never called
    found = await MCPServer(name="listing", tools=all_tools(nobodys)).list_tools()
    told = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in found]
    lists = {name: listed(told, tools_of([name])) for name in (ALL, *TOOLSETS)}
    others = tools_of(name for name in TOOLSETS if name != "notebooks")
    return {**lists, BUT_NOTEBOOKS: listed(told, others)}


async def tool_list(client: Client) -> list[Figure]:
    """What the tools cost, all and each toolset, and how soon a server tells of them."""
    lists = await tool_lists()
    every, others = cost(lists[ALL]), cost(lists[BUT_NOTEBOOKS])
    times_s = [await timed(client.list_tools) for _ in range(LISTINGS)]
    said = f"{every.outputs} for results; {spread(times_s)}; most: {largest(lists[ALL])}"
    rows = [
        _figure("tools/list", every.total, MAX_TOKENS[ALL], said),
        _figure(
            "tools/list, arguments",
            every.inputs,
            MAX_INPUTS + MAX_NOTEBOOK_INPUTS,
            f"{len(lists[ALL])} tools; {others.inputs} of all but notebooks",
        ),
        _figure(
            f"tools/list, {BUT_NOTEBOOKS}",
            others.total,
            MAX_TOKENS[BUT_NOTEBOOKS],
            f"{len(lists[BUT_NOTEBOOKS])} tools",
        ),
    ]
    for name in TOOLSETS:
        found = cost(lists[name])
        said = (
            f"{len(lists[name])} tools; {found.inputs} for arguments, {found.outputs} for results"
        )
        rows.append(_figure(f"--tools {name}", found.total, MAX_TOKENS[name], said))
    return rows


def _figure(name: str, value: int, target: int, detail: str) -> Figure:
    return Figure(name, value, "tokens", target, at_most=True, detail=detail)
