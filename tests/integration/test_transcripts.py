"""What the model of each host sees of the same ten calls, compared with what was reviewed.

``SANDBOX_RENEW_TRANSCRIPTS=1`` writes ``transcripts/HOST.txt`` anew instead; read the difference
before it is committed.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from sandbox.server.hosts import host_of

from ..support.served import Served

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parent / "transcripts"
IS_RENEWED = bool(os.environ.get("SANDBOX_RENEW_TRANSCRIPTS"))

STRUCTURED, CONTENT, BOTH = "structured", "content", "both"
HOSTS = {
    "claude-code": ("claude-code", STRUCTURED),
    "claude": ("claude-ai", CONTENT),
    "codex": ("codex-mcp-client", STRUCTURED),
    "chatgpt": ("openai-mcp", BOTH),
    "vscode": ("Visual Studio Code", CONTENT),
    "cursor": ("cursor-vscode", CONTENT),
    "gemini": ("gemini-cli-mcp-client", CONTENT),
    "unknown": ("mcp", BOTH),
}
"""The client's name, and what the host hands its model; the content where nothing is structured."""

TABLE = """\
import pandas as pd
pd.DataFrame({"species": ["setosa", "virginica"], "petal_length_cm": [1.46, 5.55]})"""
PLOT = """\
import matplotlib.pyplot as plt
plt.plot([1, 4, 9])
plt.show()"""
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("a value", "execute_code", {"code": "{'answer': 6 * 7}"}),
    ("a print", "execute_code", {"code": "print('hello')"}),
    ("a table", "execute_code", {"code": TABLE}),
    ("a plot", "execute_code", {"code": PLOT}),
    ("an error", "execute_code", {"code": "int('forty-two')"}),
    ("a long output", "execute_code", {"code": "for n in range(20_000):\n    print('line', n)"}),
    ("a denied connection", "execute_code", {"code": "!curl -sS -m 5 https://example.com"}),
    ("long work", "execute_code", {"code": "import time; time.sleep(1.5); 'done'", "wait": 0.2}),
    ("a file", "read_file", {"path": "notes.txt", "line_limit": 2}),
    ("a command", "run_command", {"command": "echo out; echo err >&2; exit 3"}),
]
NORMAL = (
    (r"\b[0-9a-f]{32}\b", "EXECUTION"),
    (r"\bs-[a-z0-9]{20,}\b", "SESSION"),
    (r"\bc-[0-9a-f]{16}\b", "COMMAND"),
    (r"\bafter \d+\.\d+ s", "after T s"),
    (r'"duration_s": [\d.]+', '"duration_s": T'),
    (r'"mtime": [\d.]+', '"mtime": T'),
    (r'"etag": "[^"]+"', '"etag": "ETAG"'),
    (r"\bIn\[\d+\]", "In[N]"),
    (r'"execution_count": \d+', '"execution_count": N'),
    (r"\d+ × \d+, \d+ kB", "W × H, N kB"),
    (r'"bytes": \d+, "width": \d+, "height": \d+', '"bytes": N, "width": W, "height": H'),
    (r'"bytes": \d+', '"bytes": N'),
)


@pytest.fixture(scope="module")
async def session_id(served: Served) -> str:
    """A session in which the modules are imported, with a file."""
    async with served.client() as client:
        opened = await client.call_tool("open_session", {"policy": "datascience"})
        assert opened.structured_content is not None, opened.content
        here = {"session_id": opened.structured_content["session_id"]}
        notes = "\n".join(f"note {number}" for number in range(5))
        await client.call_tool("write_file", {"path": "notes.txt", "content": notes, **here})
        await client.call_tool("execute_code", {"code": f"{TABLE}\n{PLOT}", **here})
    return here["session_id"]


def shortened(text: str) -> str:
    """A long text with its middle left out, for whoever reviews it."""
    lines = text.split("\n")
    return "\n".join([*lines[:6], "(…)", *lines[-6:]]) if len(lines) > 40 else text


def seen(result: Any, given: str) -> str:
    """What a model is handed of a result."""
    parts: list[str] = []
    structured = result.structured_content
    if given != CONTENT and structured is not None:
        told = json.dumps(structured, ensure_ascii=False)
        parts.append(re.sub(r"(line 4)\\n.*\\n(line 19995)", r"\1 (…) \2", told))
    if given != STRUCTURED or structured is None:
        for block in result.content:
            if block.type == "text":
                parts.append(shortened(block.text))
            elif block.type == "image":
                parts.append(f"<{block.mime_type}>")
            else:
                parts.append(f"<link {block.uri}>")
    text = "\n".join(parts)
    for pattern, name in NORMAL:
        text = re.sub(pattern, name, text)
    return text


async def transcript(client: Client, given: str, session_id: str) -> str:
    told: list[str] = []
    for title, tool, arguments in CALLS:
        result = await client.call_tool(tool, {**arguments, "session_id": session_id})
        told.append(f"=== {title}: {tool}\n{seen(result, given)}\n")
        found = re.search(r"execution_id='([^']+)', wait=30", str(result.content))
        if found:
            asked = {"execution_id": found[1], "wait": 30}
            result = await client.call_tool("get_execution", asked)
            told.append(f"=== {title}, later: get_execution\n{seen(result, given)}\n")
    return "\n".join(told)


@pytest.mark.parametrize("host", HOSTS)
async def test_a_model_sees_what_was_reviewed(served: Served, session_id: str, host: str) -> None:
    name, given = HOSTS[host]
    assert host_of(name).name == host
    async with served.client(name=name) as client:
        told = await transcript(client, given, session_id)
    kept = FOLDER / f"{host}.txt"
    if IS_RENEWED:
        FOLDER.mkdir(exist_ok=True)
        kept.write_text(told)
    assert told == kept.read_text()
