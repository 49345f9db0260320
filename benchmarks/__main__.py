"""``make bench``: measure, print the table and write ``benchmarks/results.json``.

A whole run writes the table into docs/benchmarks.md, too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio
from mcp import Client
from rich.console import Console

from benchmarks import (
    branches,
    cells,
    collaboration,
    egress,
    load,
    measures,
    memory,
    notebooks,
    provisioner,
    report,
    results,
    stdout,
    tokens,
)
from scripts.controller import Controller, controller

Measured = report.Figure | list[report.Figure]
Work = Callable[[], Awaitable[Measured]]


def sections(
    client: Client, server: Controller, here: str, image: str
) -> dict[str, dict[str, Work]]:
    """What is measured, in its order: of each section the measurements by their titles."""
    return {
        "kernels": {
            "round trip": lambda: cells.round_trip(client, server, here),
            "restart": lambda: cells.restart(server, here),
            "import": lambda: cells.first_import(server),
            "branches": lambda: branches.branches(server),
            "stdout": lambda: stdout.ten_megabytes(server, here),
            "idle memory": lambda: memory.idle_memory(client),
        },
        "sessions": {
            "tokens": lambda: tokens.tool_list(client),
            "cold start": lambda: measures.cold_start(client, image),
            "audit": measures.audit,
            "bulkhead": measures.bulkhead,
            "transfer": lambda: measures.transfer(server, here),
            "gateway": lambda: egress.gateway(client),
            "flood": lambda: measures.flood(client, server, here),
            "policy compile": measures.policy_compile,
            "proof": measures.proof,
            "forks": lambda: branches.session_forks(server),
            "results": lambda: results.typical_results(client),
        },
        "load": {"many callers": lambda: load.load(image)},
        "notebooks and Jupyter": {
            "insert and execute": lambda: notebooks.insert_execute(client),
            "read a long notebook": lambda: notebooks.read_long(client),
            "edit to peer": lambda: collaboration.edit_to_peer(client, server),
            "twenty peers": lambda: collaboration.twenty_peers(client, server),
            "provisioner": provisioner.fifty_cells,
        },
    }


async def measure(
    server: Controller, console: Console, only: Sequence[str]
) -> dict[str, list[report.Figure]]:
    """Run the measurements against one controller: all, or those whose title or section has one of
    these words in it."""
    figures: dict[str, list[report.Figure]] = {}
    async with server.client() as client:
        session = await measures.call(client, "open_session", policy="bench")
        here, image = session["session_id"], session["image"]
        for section, works in sections(client, server, here, image).items():
            for title, work in works.items():
                if only and not any(word in f"{section} {title}".lower() for word in only):
                    continue
                with console.status(f"measuring: {title}"):
                    result = await work()
                found = result if isinstance(result, list) else [result]
                figures.setdefault(section, []).extend(found)
    return figures


def main() -> int:
    """Run the benchmarks; the exit code is 0 even where a target is missed: the table says so."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results.json"))
    parser.add_argument("only", nargs="*", help="words of the sections or measurements to run")
    arguments = parser.parse_args()
    console = Console(width=160)
    os.environ["SANDBOX_ADDRESSES"] = egress.ADDRESSES
    with controller(policies=Path(__file__).parent / "policies") as server:
        figures = anyio.run(measure, server, console, arguments.only)
    report.show(figures, console)
    report.save(figures, arguments.json)
    if not arguments.only:
        report.publish(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
