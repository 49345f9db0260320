"""Try three things at once, each in a container of its own, and keep the best: over MCP.

``python examples/forks.py`` starts a server of its own, as ``branches.py`` does, which also says
how to use one that runs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
from branches import call, connected
from mcp import Client

PREPARE = """\
import random, sqlite3
chance = random.Random(7)
values = [chance.randrange(10**9) for _ in range(300_000)]
log = sqlite3.connect(":memory:")
open("twice.py", "w").write("def twice(values): raise NotImplementedError")
len(values)
"""
TRIES = {
    "a set": """\
def twice(values):
    seen = set()
    return {v for v in values if v in seen or seen.add(v)}
""",
    "sorting": """\
def twice(values):
    ordered = sorted(values)
    return {a for a, b in zip(ordered, ordered[1:]) if a == b}
""",
    "clearing up": """\
import shutil
shutil.rmtree("/workspace", ignore_errors=True)
raise OSError("there is nothing left")
""",
}
MEASURE = """\
import time
from twice import twice
start = time.perf_counter()
found = len(twice(values))
print(found, round(1000 * (time.perf_counter() - start)))
"""


async def main() -> None:
    """Prepare a session, fork it three times, and take over the best of what the forks made."""
    async with connected() as client:
        session = (await call(client, "open_session", policy="offline", reuse=False))[0]
        here = {"session_id": session["session_id"]}
        forks: list[dict[str, Any]] = []
        try:
            ready, _ = await call(client, "execute_code", code=PREPARE, **here)
            print(f"One session, with {ready['text']} numbers and a file")
            fork, took_s = await call(client, "fork_session", count=len(TRIES), **here)
            forks += fork["sessions"]
            (kernel,) = forks[0]["kernels"]
            left = ", ".join(f"{each['name']} ({each['reason']})" for each in kernel["left"])
            print(f"Forked three ways in {took_s:.1f} s; not carried: {left}")
            await compare(client, here, forks)
        finally:
            for each in (*forks, session):
                await call(client, "close_session", session_id=each["session_id"])


async def compare(client: Client, here: dict[str, str], forks: list[dict[str, Any]]) -> None:
    """Try one thing in each fork, all at once, and keep the fastest."""
    times: dict[str, int] = {}

    async def attempt(name: str, session_id: str) -> None:
        there = {"session_id": session_id}
        await call(client, "write_file", path="twice.py", content=TRIES[name], **there)
        ran = await client.call_tool("execute_code", {"code": MEASURE, **there})
        result = ran.structured_content or {}
        if result["status"] == "ok":
            found, took_ms = result["text"].split()
            times[name] = int(took_ms)
            print(f"  {name}: {found} found, in {took_ms} ms")
        else:
            print(f"  {name}: {result['status']}, {result['error']['value']}")

    where = {name: fork["session_id"] for name, fork in zip(TRIES, forks, strict=True)}
    async with anyio.create_task_group() as tasks:
        for name, session_id in where.items():
            tasks.start_soon(partial(attempt, name, session_id))
    best = min(times, key=times.__getitem__)
    file, _ = await call(client, "read_file", path="twice.py", session_id=where[best])
    await call(client, "write_file", path="twice.py", content=file["content"], **here)
    result, _ = await call(client, "execute_code", code=MEASURE, **here)
    print(f"Kept {best}; the session itself finds {result['text'].split()[0]} with it")


if __name__ == "__main__":
    anyio.run(main)
