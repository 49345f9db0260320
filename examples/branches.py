"""Load a gigabyte, branch the kernel three ways, keep the best: over MCP, with the official client.

``python examples/branches.py`` starts a server of its own over stdio, which opens one sandbox and
removes it at the end. With ``SANDBOX_URL`` and ``SANDBOX_TOKEN`` it uses a controller that runs
(``make serve`` prints both), and ``MEGABYTES`` says how much it loads.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

ROOT = str(Path(__file__).resolve().parent.parent)
MEGABYTES = int(os.environ.get("MEGABYTES", "1000"))

LOAD = f"""\
import numpy as np
rng = np.random.default_rng(7)
data = np.empty(({MEGABYTES} * 125_000 // 8, 8))
for part in np.array_split(data, 100):
    rng.standard_normal(out=part)
sample = data[:20_000]
target = sample @ np.arange(8) + 0.3 * sample[:, 0] ** 2
print(f"{{data.nbytes / 1e6:.0f}} MB loaded")
"""

FITS = {
    "a mean": "guess = np.full(len(target), target.mean())",
    "a line": "guess = sample @ np.linalg.lstsq(sample, target, rcond=None)[0]",
    "a line and squares": (
        "both = np.hstack([sample, sample ** 2])\n"
        "guess = both @ np.linalg.lstsq(both, target, rcond=None)[0]"
    ),
}
ERROR = "\nerror = float(np.abs(guess - target).mean())\nerror"


@asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    """A client of the controller that the environment names, or of one of our own."""
    if url := os.environ.get("SANDBOX_URL"):
        headers = {"Authorization": f"Bearer {os.environ['SANDBOX_TOKEN']}"}
        async with httpx2.AsyncClient(headers=headers, timeout=300) as http:
            address = f"{url.rstrip('/').removesuffix('/mcp/v1')}/mcp/v1"
            async with Client(streamable_http_client(address, http_client=http)) as client:
                yield client
        return
    env = {**os.environ, "PYTHONPATH": ROOT}
    server = StdioServerParameters(command=sys.executable, args=["-m", "sandbox", "mcp"], env=env)
    async with Client(stdio_client(server)) as client:
        yield client


async def main() -> None:
    """Do it, and say how long each step took."""
    async with connected() as client:
        session = (await call(client, "open_session", policy="datascience", reuse=False))[0]
        here = {"session_id": session["session_id"]}
        try:
            await work(client, here)
        finally:
            await call(client, "close_session", **here)


async def work(client: Client, here: dict[str, str]) -> None:
    """Load, checkpoint, branch three ways, keep the best, and go back."""
    loaded, took_s = await call(client, "execute_code", code=LOAD, **here)
    print(f"{loaded['text']} in {took_s:.1f} s")

    kept, _ = await call(client, "checkpoint_kernel", name="loaded", **here)
    print(f"{kept['done']}, in {kept['duration_s'] * 1000:.0f} ms")

    errors: dict[str, tuple[float, str]] = {}
    for name, code in FITS.items():
        branch, _ = await call(client, "branch_kernel", **here)
        kernel = {"kernel_id": branch["kernel_id"]}
        fit, _ = await call(client, "execute_code", code=code + ERROR, **kernel, **here)
        errors[name] = float(fit["text"]), branch["kernel_id"]
        made_ms = branch["duration_s"] * 1000
        print(f"  {name}: branched in {made_ms:.0f} ms, error {errors[name][0]:.3f}")

    best = min(errors, key=lambda name: errors[name][0])
    for name, (_, kernel_id) in errors.items():
        if name != best:
            await call(client, "stop_kernel", kernel_id=kernel_id, **here)
    kernel = {"kernel_id": errors[best][1]}
    same, _ = await call(client, "execute_code", code="error, data.shape", **kernel, **here)
    print(f"Kept {best}, in kernel {errors[best][1]}: {same['text']}")

    await call(client, "execute_code", code="data[:] = 0", **here)
    back, _ = await call(client, "rollback_kernel", name="loaded", **here)
    print(f"{back['done']}, in {back['duration_s'] * 1000:.0f} ms")
    whole, _ = await call(client, "execute_code", code="bool(data.any())", **here)
    print(f"The data that was overwritten is there again: {whole['text']}")


async def call(client: Client, tool: str, **arguments: Any) -> tuple[dict[str, Any], float]:
    """Call a tool; its structured result, and the seconds that it took."""
    began = time.monotonic()
    result = await client.call_tool(tool, arguments)
    if result.structured_content is None or result.is_error:
        said = "\n".join(getattr(block, "text", "") for block in result.content)
        raise SystemExit(f"{tool}: {said}")
    return result.structured_content, time.monotonic() - began


if __name__ == "__main__":
    anyio.run(main)
