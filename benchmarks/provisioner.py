"""Jupyter's own kernels in sandboxes: nbclient through the provisioner, against a bare kernel."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio.to_thread

from benchmarks.measures import check
from benchmarks.report import Figure, spread
from tests.support.provisioned import KERNELSPEC, Jupyter

CELLS = 50
BARE = "python3"
PROGRAM = f"""
import json, sys, time
import nbclient, nbformat.v4 as v4

notebook = v4.new_notebook(cells=[v4.new_code_cell(f"x = {{n}}\\nx * x") for n in range({CELLS})])
client = nbclient.NotebookClient(notebook, kernel_name=sys.argv[1], timeout=60)
began = time.perf_counter()
with client.setup_kernel():
    started = time.perf_counter()
    for index, cell in enumerate(notebook.cells):
        client.execute_cell(cell, index)
    ended = time.perf_counter()
last = notebook.cells[-1].outputs[0]["data"]["text/plain"]
print(json.dumps({{"cells": ended - started, "whole": ended - began, "last": last}}))
"""


async def fifty_cells(runs: int = 5) -> list[Figure]:
    """A notebook of 50 small cells in nbclient, in turns: without and with the kernel's start."""
    return await anyio.to_thread.run_sync(_fifty_cells, runs)


def _fifty_cells(runs: int) -> list[Figure]:
    times: dict[tuple[str, str], list[float]] = {}
    with TemporaryDirectory(prefix="sandbox-bench-") as folder:
        jupyter = Jupyter.made(Path(folder))
        jupyter.install("--policy", "offline")
        for kernel in (KERNELSPEC, BARE) * runs:
            done = jupyter.run("-c", PROGRAM, kernel)
            check(done.returncode == 0, done.stderr)
            told = json.loads(done.stdout.splitlines()[-1])
            check(told["last"] == str((CELLS - 1) ** 2), told)
            for part in ("cells", "whole"):
                times.setdefault((kernel, part), []).append(told[part])

    def figure(what: str, part: str, target: float) -> Figure:
        ours, bare = times[KERNELSPEC, part], times[BARE, part]
        ratio = statistics.median(ours) / statistics.median(bare)
        detail = f"through the provisioner {spread(ours)}; bare {spread(bare)}"
        return Figure(what, ratio, "×", target, True, detail)

    return [
        figure(f"{CELLS} cells through the provisioner / bare", "cells", 1.2),
        figure("the same, with the kernel's start", "whole", 1.5),
    ]
