"""A notebook of small cells through the kernel provisioner, against nbclient on a bare ipykernel.

``python -m benchmarks.provisioner`` measures this alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import anyio.to_thread
from rich.console import Console

from benchmarks.report import Figure, show, spread

CELLS = 50
RUNS = 5
TIMEOUT_S = 600
KERNELSPEC = "bench-sandbox"
BARE = "python3"


async def provisioner(runs: int = RUNS) -> list[Figure]:
    """Both kinds of kernel in turns, each run in a fresh process: with its start, and without."""
    told = await anyio.to_thread.run_sync(_measured, runs)
    ours, bare = told[KERNELSPEC], told[BARE]
    return [
        _figure(f"{CELLS} cells through the provisioner / nbclient", ours, bare, "cells", 1.2),
        _figure("the same, start and end included", ours, bare, "whole", 1.5),
    ]


def _figure(
    name: str, ours: list[dict[str, float]], bare: list[dict[str, float]], what: str, target: float
) -> Figure:
    mine, its = [each[what] for each in ours], [each[what] for each in bare]
    ratio = statistics.median(mine) / statistics.median(its)
    return Figure(name, ratio, "×", target, True, f"ours {spread(mine)}; bare {spread(its)}")


def _measured(runs: int) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {KERNELSPEC: [], BARE: []}
    with TemporaryDirectory() as folder:
        spec = {
            "argv": ["false"],
            "display_name": KERNELSPEC,
            "language": "python",
            "metadata": {"kernel_provisioner": {"provisioner_name": "sandbox", "config": {}}},
        }
        place = Path(folder) / "kernels" / KERNELSPEC
        place.mkdir(parents=True)
        (place / "kernel.json").write_text(json.dumps(spec))
        env = {**os.environ, "JUPYTER_PATH": folder, "SANDBOX_STATE_DIR": f"{folder}/state"}
        # Modules are compiled once, as where the package is installed.
        env |= {"PYTHONPYCACHEPREFIX": f"{folder}/compiled"}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for run in range(runs + 1):  # the first one compiles, and is not counted
            for name, durations in found.items():
                told = _run(name, env)
                if run:
                    durations.append(told)
    return found


def _run(name: str, env: dict[str, str]) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.provisioner", name]
    done = subprocess.run(
        words,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    return json.loads(done.stdout)


def once(name: str) -> dict[str, float]:
    """Run the notebook once: the seconds of its cells, and of the whole."""
    from importlib.metadata import EntryPoint

    import nbclient
    import nbformat
    from jupyter_client.provisioning.factory import KernelProvisionerFactory as Factory

    made: Any = Factory.instance()  # known also where the package was installed before it had one
    made.provisioners["sandbox"] = EntryPoint(
        "sandbox", "sandbox.jupyter.provisioner:SandboxProvisioner", Factory.GROUP_NAME
    )
    new: Any = nbformat.v4
    cells = [new.new_code_cell(f"print({n} + 1)") for n in range(CELLS)]
    marks: list[float] = []

    def mark(**_: object) -> None:
        marks.append(time.perf_counter())

    client: Any = nbclient.NotebookClient(
        new.new_notebook(cells=cells),
        kernel_name=name,
        on_cell_execute=mark,
        on_cell_executed=mark,
    )
    start = time.perf_counter()
    client.execute()
    whole = time.perf_counter() - start
    text = "".join(each["text"] for each in cells[-1].outputs)
    if text != f"{CELLS}\n":
        raise ValueError(text)
    return {"cells": marks[-1] - marks[0], "whole": whole}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(once(sys.argv[1])))
    else:
        show({"notebooks and Jupyter": anyio.run(provisioner)}, Console(width=160))
