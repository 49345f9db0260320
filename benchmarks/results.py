"""What typical results take of a model's context, in characters: structured, and as content."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mcp import Client

from benchmarks.report import Figure
from benchmarks.tokens import CHARACTERS_PER_TOKEN

MAX_TOKENS = 10_000
"""Of one form of one result: where Claude Code begins to warn of large answers."""
CELLS = (
    ("value", "1+1"),
    ("print", "print('hello')"),
    (
        "table, 60 × 8",
        "import numpy as np, pandas as pd\npd.DataFrame(np.arange(480).reshape(60, 8))",
    ),
    ("plot", "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]); plt.show()"),
    (
        "plot, 1200 × 900",
        "plt.figure(figsize=(8, 6), dpi=150); plt.imshow(np.random.rand(600, 600)); plt.show()",
    ),
    (
        "twelve scatter plots",
        "for n in range(12):\n    plt.figure(); plt.scatter(*np.random.rand(2, 300)); plt.show()",
    ),
    ("error", "{}['absent']"),
    ("20,000 lines", "for n in range(20_000): print('line', n)"),
    ("denied connection", "!curl -sS -m 5 https://example.com"),
)
COMMAND = "seq 1 20000; ls /absent"


@dataclass(frozen=True)
class ResultSize:
    """What one result takes."""

    name: str
    structured: int
    """Characters of its JSON."""
    text: int
    """Characters of its content."""
    pictures: int
    """How many are shown."""
    message_bytes: int
    """The whole answer as it travels."""


async def sizes(client: Client) -> list[ResultSize]:
    """Ten typical results in a session of their own, under the policy ``datascience``."""
    opened = await client.call_tool("open_session", {"policy": "datascience"})
    here = {"session_id": (opened.structured_content or {})["session_id"]}
    calls = [(name, "execute_code", {"code": code}) for name, code in CELLS]
    calls.append(("command, 20,000 lines", "run_command", {"command": COMMAND}))
    found = [
        _size(name, await client.call_tool(tool, {**given, **here})) for name, tool, given in calls
    ]
    await client.call_tool("close_session", here)
    return found


async def typical_results(client: Client) -> list[Figure]:
    """The tokens of ten typical results, in the larger of their two forms."""
    return [
        Figure(
            f"result: {each.name}",
            max(each.structured, each.text) / CHARACTERS_PER_TOKEN,
            "tokens",
            MAX_TOKENS,
            at_most=True,
            detail=f"{each.structured:,} characters structured, {each.text:,} as content; "
            f"pictures: {each.pictures}; {each.message_bytes:,} bytes in all",
        )
        for each in await sizes(client)
    ]


def _size(name: str, result: Any) -> ResultSize:
    return ResultSize(
        name,
        len(json.dumps(result.structured_content, ensure_ascii=False)),
        sum(len(block.text) for block in result.content if block.type == "text"),
        sum(block.type == "image" for block in result.content),
        len(result.model_dump_json(by_alias=True, exclude_none=True)),
    )
