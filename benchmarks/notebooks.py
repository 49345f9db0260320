"""Agents in notebooks: a cell inserted and run, and a long notebook read, over MCP."""

from __future__ import annotations

import statistics
import time
from typing import Any

import nbformat.v4
from mcp import Client

from benchmarks.measures import call, check, timed
from benchmarks.report import Figure, spread

LONG_CELLS = 1000


async def insert_execute(client: Client, runs: int = 60) -> Figure:
    """``insert_execute_code_cell`` of ``1+1``, against ``execute_code``, in turns of 10."""
    session = (await call(client, "open_session", policy="bench", reuse=False))["session_id"]
    here = {"session_id": session}
    await call(client, "use_notebook", **_named("bench"), mode="create", **here)
    inserted: list[float] = []
    executed: list[float] = []

    async def insert() -> None:
        told = await call(
            client, "insert_execute_code_cell", cell_index=-1, cell_source="1+1", **here
        )
        check("2" in str(told), told)

    async def execute() -> None:
        told = await call(client, "execute_code", code="1+1", **here)
        check(told["text"] == "2", told)

    await insert()
    await execute()
    for _ in range(runs // 10):
        for _ in range(10):
            inserted.append(await timed(insert))
        for _ in range(10):
            executed.append(await timed(execute))
    await call(client, "close_session", **here)
    ratio = statistics.median(inserted) / statistics.median(executed)
    detail = f"inserted and run {spread(inserted)}; execute_code {spread(executed)}"
    return Figure("insert_execute_code_cell / execute_code", ratio, "×", 1.5, True, detail)


async def read_long(client: Client, runs: int = 15) -> Figure:
    """Read a notebook of 1,000 cells brief, from its first cell to its last, page by page."""
    session = (await call(client, "open_session", policy="bench", reuse=False))["session_id"]
    here = {"session_id": session}
    written = await call(client, "write_file", path="long.ipynb", content=long_notebook(), **here)
    await call(client, "use_notebook", **_named("long"), mode="connect", **here)
    asked = {"notebook_name": "long", "response_format": "brief", "limit": 0, **here}
    pages: list[float] = []

    async def read() -> None:
        at = 0
        while at < LONG_CELLS:
            start = time.perf_counter()
            told = await call(client, "read_notebook", start_index=at, **asked)
            pages.append(time.perf_counter() - start)
            check(told["total"] == LONG_CELLS and bool(told["cells"]), told)
            at += len(told["cells"])

    durations = [await timed(read) for _ in range(runs)]
    await call(client, "close_session", **here)
    value = 1000 * statistics.median(durations)
    detail = f"{spread(durations)}; a page {spread(pages)}; a file of {written['size']:,} bytes"
    return Figure(f"read {LONG_CELLS:,} cells, brief", value, "ms", 50, True, detail)


def long_notebook() -> str:
    """A notebook of 1,000 cells as a file's text: half of them Markdown, half with outputs."""
    cells: list[Any] = []
    for number in range(LONG_CELLS):
        if number % 2:
            output = nbformat.v4.new_output("stream", text=f"{number}\n")
            source = f"for n in range({number}):\n    pass\nprint(n + 1)"
            cells.append(nbformat.v4.new_code_cell(source, id=f"c{number}", outputs=[output]))
        else:
            cells.append(nbformat.v4.new_markdown_cell(f"## Step {number}", id=f"c{number}"))
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells))


def _named(name: str) -> dict[str, str]:
    return {"notebook_name": name, "notebook_path": f"{name}.ipynb"}
