"""What runs write into docs/benchmarks.md: figures between marks, and what they were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"


def put(what: str, text: str, page: Path = PAGE) -> None:
    """Replace what is between the marks of that name in the page.

    Raises:
        ValueError: The page has lost its marks.
    """
    begin, end = f"<!-- {what}: begin -->", f"<!-- {what}: end -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no {begin} … {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, its first row the heading."""
    heading, *body = (f"| {' | '.join(row)} |" for row in table)
    rule = "|---" + "|---:" * (len(table[0]) - 1) + "|"
    return "\n".join([heading, rule, *body])


def machine() -> dict[str, str]:
    """What figures were taken on."""
    engine = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True
    )
    facts = Path("/proc/meminfo").read_text().split("\n", 1)[0].split()
    models = [
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "taken on": date.today().isoformat(),
        "machine": f"{os.cpu_count()} processors ({models[0] if models else platform.machine()}), "
        f"{int(facts[1]) / 1e6:.0f} GB of memory, Linux {platform.release()}",
        "Docker Engine": engine.stdout.strip(),
        "Python": f"{platform.python_version()} for clients, 3.11 in the images",
    }
